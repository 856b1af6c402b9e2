"""What a checkpoint can take, from its configuration files alone: no weights are read and no torch is imported."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from timepro.answers.write import can_write
from timepro.astp import AstpLayout, check_covered, clip_tokens
from timepro.data.audio import LENGTH_TOLERANCE, read_header
from timepro.families import ModelFamily, family_named, family_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from timepro.tiny.config import TinyModelConfig

SAMPLE_RATE, HOP, SECONDS = 16000, 160, 30.0  # of the encoders of all supported families
_SURELY_S = 1.0  # so far before their end, the timestamps need no closer look


@dataclass(frozen=True)
class ModelLimits:
    """What bounds a clip and an answer.

    Args:
        family: tells how many audio frames a clip has.
        layout: the timestamps among the audio frames, and how answers write times.
        seconds: the longest clip that the encoder takes.
        tokenizer: the checkpoint's folder, for counting a question's tokens; None where it is yet to be built.
    """

    family: ModelFamily
    layout: AstpLayout
    seconds: float = SECONDS
    tokenizer: Path | None = None
    _tokens: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of_tiny(cls, config: TinyModelConfig) -> ModelLimits:
        """Of the tiny model that a run would build. Raises ValueError for settings that contradict one another."""
        layout = AstpLayout(
            enabled=config.astp and not config.published, first_token_id=0,
            stride=config.timestamps.stride, duration=config.timestamps.duration,
            every=config.astp_every, position=config.astp_position, answer_style=config.answer_style,
            style=config.timestamps.style,
        )  # fmt: skip
        return cls(family_named(config.family, "model.tiny.family"), layout)

    @classmethod
    def of_checkpoint(cls, folder: Path) -> ModelLimits:
        """Of a checkpoint folder. Raises ValueError for a file of it that is missing or damaged."""
        config = _json(folder / "config.json")
        family = family_of(folder)
        layout = AstpLayout.from_config(SimpleNamespace(**family.config_parts(config)[0]))
        whole = folder / "processor_config.json"  # newer folders keep the extractor's settings in it
        extractor = _json(whole).get("feature_extractor") if whole.is_file() else None
        extractor = extractor or _json(folder / "preprocessor_config.json")
        rate = extractor.get("sampling_rate", SAMPLE_RATE)
        return cls(family, layout, extractor.get("n_samples", SECONDS * rate) / rate, folder)

    def clip_problem(self, duration: float, audio: Path | None = None) -> str:
        """Why a clip of so many seconds cannot be used; "" where it can.

        Args:
            audio: its file, whose header decides where the duration is close to a limit.
        """
        samples = round(duration * SAMPLE_RATE)
        # A stated duration may be off by the tolerance: nearer to a limit than that, the file itself is asked.
        if audio is not None and (duration > self.seconds - LENGTH_TOLERANCE or duration < LENGTH_TOLERANCE):
            samples, duration = _length(audio, samples, duration)
        if samples > self.seconds * SAMPLE_RATE:
            return f"lasts {duration:g} s, more than the {self.seconds:g} s that the audio encoder takes; cut the clip"
        frames = -(-samples // HOP)
        if frames < 2 or self.family.audio_frames(frames) < 1:
            return (
                f"lasts {duration:g} s, {samples} of the {self._least_samples()} samples at {SAMPLE_RATE} Hz that one "
                "audio frame takes; leave the clip out"
            )
        if duration > self.layout.duration - _SURELY_S:
            try:
                check_covered(self.family.audio_frames(frames), self.layout, self.family.frame_rate)
            except ValueError as problem:
                return str(problem)
        return ""

    def _least_samples(self) -> int:
        frames = next(frames for frames in range(2, 100) if self.family.audio_frames(frames) >= 1)
        return (frames - 1) * HOP + 1

    def time_problem(self, latest: float) -> str:
        """Why an answer cannot say a time, the latest of a clip; "" where it can."""
        if self.layout.answer_style == "timestamps" and latest > self.layout.duration - _SURELY_S:
            try:
                self.layout.vocabulary.index(latest)
            except ValueError as problem:
                return str(problem)
        return ""

    def can_write(self, label: str) -> bool:
        """Whether an answer can hold a label or a caption."""
        return can_write(label, self.layout.answer_style)

    def audio_tokens(self, duration: float) -> int:
        """Tokens of a clip in the prompt: audio frames, and the timestamps among them."""
        return clip_tokens(self.family.audio_frames(-(-round(duration * SAMPLE_RATE) // HOP)), self.layout)

    def most_question_tokens(self, question: str) -> int:
        """A bound for everything else in the prompt: a byte-level tokenizer gives at most a token a byte."""
        return len(question.encode()) + (_TEMPLATE if self.tokenizer is None else _PUBLISHED_TEMPLATE)

    def question_tokens(self, question: str) -> int:
        """The number itself where the checkpoint has a tokenizer, else the bound."""
        if self.tokenizer is None:
            return self.most_question_tokens(question)
        if question not in self._tokens:
            self._tokens[question] = self._prompt_length(question)
        return self._tokens[question]

    def _prompt_length(self, question: str) -> int:
        """Tokens of the prompt without the clip's."""
        from timepro.chat import prompt_ids

        return len(prompt_ids(self._read_tokenizer, self.family.tokens, question)) - 1  # the placeholder is the clip's

    @cached_property
    def _read_tokenizer(self) -> PreTrainedTokenizerBase:
        """Slow to read: asked for only where the bound does not do, and kept."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(self.tokenizer), local_files_only=True)


_TEMPLATE = 48  # tokens that the tiny model's chat template adds, at most
_PUBLISHED_TEMPLATE = 512  # and those of published ones, a system prompt among them


def _length(audio: Path, samples: int, duration: float) -> tuple[int, float]:
    """Samples at the model's rate and seconds, by the file's header; as stated where it cannot be read."""
    try:
        header = read_header(audio)
    except (OSError, ValueError):  # what is wrong with a file is said where it is read
        return samples, duration
    return -(-header.frames * SAMPLE_RATE // header.rate), header.duration


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; {path.parent} is not a checkpoint folder of this project") from None
    except ValueError as problem:
        raise ValueError(f"{path}: not valid JSON ({problem}); the checkpoint is damaged") from None
