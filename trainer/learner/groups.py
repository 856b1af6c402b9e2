"""A step's groups: sampled, scored, drawn again where they teach nothing, and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rewards import Completion, Group
from rewards.registry import BuiltReward
from rollout.client import Answer, AnswerGroup, Prompt, RolloutPool, Sampling
from timepro.answers import parse_answer
from timepro.features import Processor
from timepro.runs import path_in
from timepro.system.files import replacing
from timepro.tasks import Sample
from timepro.tasks.registry import recorded
from trainer.learner import distributed
from trainer.learner.advantages import has_spread, is_scored
from trainer.learner.cursor import Mixture, share
from trainer.learner.recovery import Recovery
from trainer.settings.grpo import GrpoConfig


@dataclass(frozen=True)
class ScoredGroup:
    """One group after the rewards: what the loss and the record need.

    rewards, compared and parts are NaN for an answer that a reward gave up on.

    Args:
        compared: what the advantages are made of: "reward", or the parts that the configuration names.
        skipped: name of the reward -> position -> why.
    """

    sample: Sample
    answers: AnswerGroup
    texts: list[str]
    rewards: np.ndarray
    parts: dict[str, np.ndarray]
    compared: dict[str, np.ndarray]
    skipped: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def teaches(self) -> bool:
        """Whether the group's answers differ in anything that is compared."""
        return any(has_spread(values) for values in self.compared.values())


@dataclass
class Asked:
    """A rank's groups of a step: asked for, or there.

    Args:
        step: whose groups these are; their sampling seeds depend on it.
        version: the weights that were asked.
        on_its_way: what the workers were asked to generate; None once it is there, or has to be asked for again.
    """

    step: int
    version: int
    samples: list[Sample]
    on_its_way: Future[list[AnswerGroup]] | None = None
    groups: list[AnswerGroup] | None = None


class GroupSampler:
    """Draws one rank's groups of a step. A group never leaves its rank.

    `upcoming` holds the next step's groups where they are asked for one step ahead.

    Args:
        samples: all training samples, on every rank.
        cursor: the order of the global batch; moves alike on every rank.
        recovery: what to do when workers fail.
    """

    def __init__(
        self,
        processor: Processor,
        pool: RolloutPool,
        reward: BuiltReward,
        samples: Sequence[Sample],
        cursor: Mixture,
        config: GrpoConfig,
        seed: int,
        recovery: Recovery,
    ) -> None:
        self.processor, self.pool, self.reward, self.recovery = processor, pool, reward, recovery
        self.samples, self.cursor, self.seed = samples, cursor, seed
        self.settings, self.compared_parts = config.groups, config.advantage.parts
        self.upcoming: Asked | None = None

    def next_samples(self) -> list[Sample]:
        """This rank's share of the step's prompts."""
        indices = self.cursor.take(self.settings.prompts_per_step)
        return [self.samples[i] for i in share(indices, distributed.rank(), distributed.world_size())]

    def ask(self, samples: Sequence[Sample], step: int, version: int) -> Asked:
        """Start generating one group of answers for each sample."""
        prompts, sampling = self._prompts(samples, step)
        return Asked(step, version, list(samples), self.pool.submit(prompts, sampling, version=version))

    def answered(self, asked: Asked, version: int) -> list[AnswerGroup]:
        """The groups of what was asked, each of one weight version. A collective, unless they are there.

        Args:
            version: the learner's weights now, which failing workers are brought to and asked again with.

        Raises:
            WorkersLost: the workers failed for good.
        """

        def work() -> list[AnswerGroup]:
            if asked.on_its_way is not None:
                coming, asked.on_its_way = asked.on_its_way, None
                return coming.result()
            asked.version = version
            prompts, sampling = self._prompts(asked.samples, asked.step)
            return self.pool.generate(prompts, sampling, version=version)

        if asked.groups is None:
            asked.groups = self.recovery.attempt(work, version)
        return asked.groups

    def generate(self, samples: Sequence[Sample], step: int, version: int) -> list[AnswerGroup]:
        """`ask`, and wait. A collective."""
        return self.answered(self.ask(samples, step, version), version)

    def _prompts(self, samples: Sequence[Sample], step: int) -> tuple[list[Prompt], Sampling]:
        settings = self.settings
        eos = (self.processor.eos_token_id,)
        prompts = [
            Prompt(s.id, self.processor.prompt_ids(s.question), s.audio, seed=prompt_seed(self.seed, step, s.id))
            for s in samples
        ]
        return prompts, Sampling(settings.group_size, settings.temperature, settings.max_tokens, eos)

    def upcoming_as_json(self) -> str:
        """The next step's groups for a checkpoint; they are there, or there are none."""
        asked = self.upcoming
        if asked is None:
            return "null"
        assert asked.groups is not None, "a checkpoint is written between steps, when all groups asked for are there"
        groups = [asdict(group) for group in asked.groups]
        return json.dumps({"step": asked.step, "version": asked.version, "groups": groups})

    def restore_upcoming(self, texts: Sequence[str]) -> None:
        """Read what `upcoming_as_json` gave on every rank then; each rank takes its part of it now."""
        stored = [ahead for ahead in map(json.loads, texts) if ahead is not None]
        if not stored:
            return
        by_id = {sample.id: sample for sample in self.samples}
        ranks, rank = distributed.world_size(), distributed.rank()
        if ranks == len(stored):
            own = stored[rank]["groups"]
        else:
            own = [group for ahead in stored for group in ahead["groups"]][rank::ranks]
        groups = [
            AnswerGroup(**{**group, "answers": [_answer(answer) for answer in group["answers"]]}) for group in own
        ]
        samples = [by_id[group.id] for group in groups]
        self.upcoming = Asked(stored[0]["step"], stored[0]["version"], samples, None, groups)

    def score(self, samples: Sequence[Sample], groups: Sequence[AnswerGroup]) -> list[ScoredGroup]:
        """Read events from the answers and score each group as a whole."""
        read = []
        for sample, answers in zip(samples, groups, strict=True):
            texts = [self.processor.answer_text(a.token_ids) for a in answers.answers]
            completions = tuple(
                Completion(text, parse_answer(text), answer.truncated, len(answer.token_ids))
                for text, answer in zip(texts, answers.answers, strict=True)
            )
            read.append(Group(sample.reference, completions, sample.task, sample.duration, sample.id))
        self.reward.prefetch(read)
        scored = []
        for sample, answers, group in zip(samples, groups, read, strict=True):
            texts = [completion.text for completion in group.completions]
            values = self.reward(group)
            compared = self._compared(values, group.parts)
            scored.append(ScoredGroup(sample, answers, texts, values, group.parts, compared, group.skipped))
        return scored

    def _compared(self, rewards: np.ndarray, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [name for name in self.compared_parts if name in parts]
        if not self.compared_parts:
            return {"reward": rewards}
        if not names:
            raise ValueError(
                f"grpo.advantage.parts names {', '.join(self.compared_parts)}; the reward of this task "
                f"records only {', '.join(parts)}"
            )
        # An answer that the whole reward gave up on has left the group, whatever a part said of it.
        return {name: np.where(is_scored(rewards), parts[name], np.nan) for name in names}

    def resample(self, scored: list[ScoredGroup], step: int, version: int) -> list[ScoredGroup]:
        """Put the next prompts' groups in the place of flat ones, at most `resample_rounds` times. A collective.

        Returns:
            as many groups as `scored`; some may still be flat.
        """
        current = list(scored)
        for _ in range(self.settings.resample_rounds if self.settings.flat_groups == "resample" else 0):
            flat = [i for i, group in enumerate(current) if not group.teaches]
            wanted = distributed.from_every([float(len(flat))])
            if not sum(wanted):
                break
            # Every rank moves the same cursor by what all ranks need, and keeps its own part.
            indices = self.cursor.take(int(sum(wanted)))
            first = int(sum(wanted[: distributed.rank()]))
            samples = [self.samples[i] for i in indices[first : first + len(flat)]]
            fresh = self.score(samples, self.generate(samples, step, version))
            for place, group in zip(flat, fresh, strict=True):
                current[place] = group
        return current


def _answer(stored: dict[str, Any]) -> Answer:
    return Answer(**{**stored, "weight_versions": tuple(stored["weight_versions"])})


def prompt_seed(seed: int, step: int, sample_id: str) -> int:
    """A sampling seed that depends on the run's seed, the step and the sample alone: a resumed run repeats it."""
    words = np.frombuffer(sample_id.encode().ljust(-(-len(sample_id.encode()) // 4) * 4, b"\0"), dtype=np.uint32)
    return int(np.random.SeedSequence([seed, step, *words.tolist()]).generate_state(1)[0] >> 1)


def record(
    run: Path,
    step: int,
    drawn: Sequence[ScoredGroup],
    trained: Sequence[ScoredGroup],
    advantages: Sequence[np.ndarray],
) -> None:
    """Keep every answer of a step with its reward parts and weight version; one file a step and rank.

    Args:
        drawn: the step's first groups.
        trained: what the update saw: the same, or groups that took the place of flat ones.
        advantages: (G,) of each trained group.
    """
    folder = run / "rollouts"
    path = folder / f"step-{step:06d}.rank{distributed.rank()}.jsonl"
    replaced = [group for group, used in zip(drawn, trained, strict=True) if group is not used]
    with replacing(path) as out:
        for group, values in zip(trained, advantages, strict=True):
            out.write(json.dumps(_as_json(run, group, values, replaced=False)) + "\n")
        for group in replaced:
            out.write(json.dumps(_as_json(run, group, np.zeros(len(group.rewards)), replaced=True)) + "\n")


def _as_json(run: Path, group: ScoredGroup, advantages: np.ndarray, replaced: bool) -> dict[str, Any]:
    answers = [
        {
            "text": text,
            "reward": _number(value),
            "advantage": float(advantages[i]),
            "parts": {name: _number(part[i]) for name, part in group.parts.items()},
            **({"skipped": why} if (why := {n: at[i] for n, at in group.skipped.items() if i in at}) else {}),
            "token_ids": answer.token_ids,
            "logprobs": answer.logprobs,
            "truncated": answer.truncated,
            "weight_version": answer.weight_versions[0],
        }
        for i, (text, value, answer) in enumerate(zip(group.texts, group.rewards, group.answers.answers, strict=True))
    ]
    sample = group.sample
    line = {
        "id": sample.id,
        **recorded(sample.task),
        "question": sample.question,
        "audio": path_in(run, sample.audio),
        "duration": sample.duration,
        "reference": [asdict(event) for event in sample.reference],
        "worker": group.answers.worker,
        "seconds": round(group.answers.seconds, 4),
    }
    return line | ({"replaced": True} if replaced else {}) | {"answers": answers}


def _number(value: float) -> float | None:
    """A reward for JSON, which has no NaN: null for an answer that was not scored."""
    return None if np.isnan(value) else float(value)
