"""Scored groups: events read from the answers, a reward an answer; begun as the groups come in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rewards import Completion, Group
from rewards.registry import BuiltReward
from rollout.client import Answer, AnswerGroup
from timepro.answers import parse_answer
from timepro.features import Processor
from timepro.tasks import Sample
from trainer.learner.advantages import has_spread, is_scored


@dataclass(frozen=True)
class ScoredGroup:
    """One group after the rewards: what the loss and the record need.

    rewards, compared and parts are NaN for an answer that a reward gave up on.

    Args:
        sampled: as the worker gave it.
        compared: what the advantages are made of: "reward", or the parts that the configuration names.
        skipped: name of the reward -> position -> why.
    """

    sample: Sample
    sampled: AnswerGroup
    texts: list[str]
    rewards: np.ndarray
    parts: dict[str, np.ndarray]
    compared: dict[str, np.ndarray]
    skipped: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def answers(self) -> list[Answer]:
        """The G answers."""
        return self.sampled.answers

    @property
    def prompt_token_ids(self) -> list[int]:
        """The prompt as the worker expanded it."""
        return self.sampled.prompt_token_ids

    @property
    def teaches(self) -> bool:
        """Whether the group's answers differ in anything that is compared."""
        return any(has_spread(values) for values in self.compared.values())


class Scorer:
    """Scores groups, each as a whole.

    Args:
        compared_parts: the reward's parts that advantages are made of; empty: the reward itself.
    """

    def __init__(self, processor: Processor, reward: BuiltReward, compared_parts: Collection[str]) -> None:
        self._processor, self._reward, self._compared_parts = processor, reward, compared_parts
        self._early: dict[int, tuple[AnswerGroup, Group | ScoredGroup]] = {}  # by the group's identity
        # A slow reward's own processes work on a group while others come in; waiting for one would keep from handing
        # on the next.
        self._only_handed_on = any(node.job is not None for node in reward.nodes())

    def begin(self, sample: Sample, answers: AnswerGroup) -> None:
        """Score a group that has come in, or hand it to the processes of a slow reward; `score` picks up the result.

        What fails here fails again in `score`, where all ranks hear of it.
        """
        try:
            read = self._read(sample, answers)
            if self._only_handed_on:
                self._reward.prefetch([read])
                self._early[id(answers)] = answers, read
            else:
                self._early[id(answers)] = answers, self._scored(sample, answers, read)
        except Exception:  # noqa: BLE001 - see above
            return

    def forget(self) -> None:
        """Drop what was begun with groups that will not be scored."""
        self._early.clear()
        self._reward.forget()

    def score(self, samples: Sequence[Sample], groups: Sequence[AnswerGroup]) -> list[ScoredGroup]:
        """Read events from the answers and score each group as a whole.

        Raises:
            ValueError: as the reward; or it records none of the parts that advantages are made of.
        """
        found = [self._begun(sample, group) for sample, group in zip(samples, groups, strict=True)]
        self._reward.prefetch([one for one, handed_on in found if isinstance(one, Group) and not handed_on])
        return [
            one if isinstance(one, ScoredGroup) else self._scored(sample, group, one)
            for sample, group, (one, _) in zip(samples, groups, found, strict=True)
        ]

    def _begun(self, sample: Sample, answers: AnswerGroup) -> tuple[Group | ScoredGroup, bool]:
        """The group as far as it has come, and whether it came that far in `begin`."""
        early = self._early.pop(id(answers), None)
        return (early[1], True) if early is not None else (self._read(sample, answers), False)

    def _read(self, sample: Sample, answers: AnswerGroup) -> Group:
        texts = [self._processor.answer_text(answer.token_ids) for answer in answers.answers]
        completions = tuple(
            Completion(text, parse_answer(text), answer.truncated, len(answer.token_ids))
            for text, answer in zip(texts, answers.answers, strict=True)
        )
        return Group(sample.reference, completions, sample.task, sample.duration, sample.id)

    def _scored(self, sample: Sample, answers: AnswerGroup, group: Group) -> ScoredGroup:
        texts = [completion.text for completion in group.completions]
        values = self._reward(group)
        compared = self._compared(values, group.parts)
        return ScoredGroup(sample, answers, texts, values, group.parts, compared, group.skipped)

    def _compared(self, rewards: np.ndarray, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [name for name in self._compared_parts if name in parts]
        if not self._compared_parts:
            return {"reward": rewards}
        if not names:
            raise ValueError(
                f"grpo.advantage.parts names {', '.join(self._compared_parts)}; the reward of this task "
                f"records only {', '.join(parts)}"
            )
        # An answer that the whole reward gave up on has left the group, whatever a part said of it.
        return {name: np.where(is_scored(rewards), parts[name], np.nan) for name in names}
