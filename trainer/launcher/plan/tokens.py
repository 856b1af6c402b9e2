"""How many tokens a prompt, a row and a step have: from the manifests' durations and the settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

from timepro.astp import AstpLayout
from timepro.checks.limits import ModelLimits
from timepro.data.manifest import iter_manifest
from timepro.events import Event
from timepro.tasks.registry import find_task
from timepro.tasks.samples import samples_of, task_weights
from trainer.launcher.plan.architecture import Architecture
from trainer.settings.experiment import ExperimentConfig

_TEMPLATE = 40  # tokens of a chat template with a system prompt, about
_TOKEN_BYTES = 4  # of a word's token, in questions and labels
_TIMES = {"digits": 11, "timestamps": 2}  # tokens of an event's two times: "1.24-12.96" has a token a digit
_BETWEEN = 2  # and of what separates it from the next
_LOOKED_AT = 500  # clips whose answers are counted
ASSUMED_S, ASSUMED_ANSWER = 10.0, 60  # where there is no manifest: DESED's clips, three events written in digits


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts and answers.

    Args:
        clips: of the training set; 0: not known.
        seconds, longest_s: of a clip, on average and at most.
        question: with the chat template.
        prompt, longest_prompt: clip and question.
        answer, longest_answer: what an answer has, and may have.
        known: where the durations come from, for people.
    """

    clips: int
    seconds: float
    longest_s: float
    question: int
    prompt: int
    longest_prompt: int
    answer: int
    longest_answer: int
    known: str

    def row(self, group: int) -> int:
        """Tokens that the learner computes for a prompt with its answers, on average."""
        return self.prompt + group * (self.answer - 1)

    def longest_row(self, group: int) -> int:
        """And at most."""
        return self.longest_prompt + group * (self.longest_answer - 1)


@dataclass(frozen=True)
class _Data:
    """Durations of clips; tokens of a question and of a right answer; where they come from."""

    durations: Sequence[float]
    question: int
    answer: float
    clips: int
    known: str


def tokens_of(config: ExperimentConfig, architecture: Architecture, seconds: float = 0.0) -> Tokens:
    """Tokens of GRPO's prompts and answers (of SFT's where there is no GRPO).

    Args:
        seconds: of every clip, in place of what the manifest says.

    Raises:
        ValueError: a manifest that cannot be read.
    """
    limits = limits_of(config, architecture)
    data = _data(config, limits.layout.answer_style, seconds)
    most = config.grpo.groups.max_tokens if config.grpo.enabled else config.evaluation.max_tokens
    mean, longest = _mean(data.durations), max(data.durations)
    return Tokens(
        clips=data.clips,
        seconds=mean,
        longest_s=longest,
        question=data.question,
        prompt=limits.audio_tokens(mean) + data.question,
        longest_prompt=limits.audio_tokens(longest) + data.question,
        answer=max(2, min(round(data.answer), most)),
        longest_answer=most,
        known=data.known,
    )


def limits_of(config: ExperimentConfig, architecture: Architecture) -> ModelLimits:
    """What the checkpoint takes; of a published one that is not there yet, with the timestamps it will be given."""
    if not config.model.path:
        return ModelLimits.of_tiny(config.model.tiny)
    folder = Path(config.model.path)
    if (folder / "preprocessor_config.json").is_file() or (folder / "processor_config.json").is_file():
        return ModelLimits.of_checkpoint(folder)
    layout = AstpLayout(first_token_id=0)
    if (folder / "config.json").is_file():
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layout = AstpLayout.from_config(SimpleNamespace(**architecture.family.config_parts(raw)[0]))
    return ModelLimits(architecture.family, layout)


def _data(config: ExperimentConfig, style: str, seconds: float) -> _Data:
    named = config.data.rl if config.grpo.enabled else config.data.sft
    asks = [find_task(task).asks for task in task_weights(config.task)]
    question = _question_tokens(asks)
    if seconds:
        return _Data([seconds], question, ASSUMED_ANSWER, 0, f"clips of {seconds:g} s, as asked for")
    if not named:
        sound = config.data.soundscape
        events = (sound.min_events + sound.max_events) / 2
        return _Data(
            [sound.min_duration, sound.max_duration], question, 1 + events * _event_tokens(style, "siren"),
            config.data.rl_clips if config.grpo.enabled else config.data.sft_clips,
            f"soundscapes of {sound.min_duration:g} to {sound.max_duration:g} s",
        )  # fmt: skip
    if not Path(named).is_file():
        known = f"{named} is not there yet: clips of {ASSUMED_S:g} s assumed"
        return _Data([ASSUMED_S], question, ASSUMED_ANSWER, 0, known)
    clips = list(iter_manifest(Path(named), check_audio=False))
    if not clips:
        raise ValueError(f"{named}: there is no clip in it")
    some = list(islice(clips, _LOOKED_AT))
    samples = [sample for task in task_weights(config.task) for sample in samples_of(some, task)]
    return _Data(
        [clip.duration for clip in clips],
        _question_tokens([sample.before + sample.question for sample in samples] or asks),
        _mean([answer_tokens(sample.reference, style) for sample in samples]) or ASSUMED_ANSWER,
        len(clips),
        f"{len(clips):,} clips of {named}",
    )


def answer_tokens(events: Sequence[Event], style: str) -> int:
    """About how many tokens an answer has that says these events, the stop token included."""
    return 1 + sum(_event_tokens(style, event.label) for event in events)


def _event_tokens(style: str, label: str) -> int:
    return _TIMES[style] + -(-len(label.encode()) // _TOKEN_BYTES) + _BETWEEN


def _question_tokens(questions: Sequence[str]) -> int:
    return max((-(-len(question.encode()) // _TOKEN_BYTES) for question in questions), default=0) + _TEMPLATE


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
