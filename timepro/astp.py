"""Audio-Side Time Prompt (ASTP): the layout of audio frames and timestamps in the prompt.

One pure function says which token stands at which place. The learner calls it to build its prompts, the rollout
worker calls it inside vLLM's processor, so both read the same interleaving by construction (arXiv 2604.13715).

A timestamp is one or two ordinary tokens, as the vocabulary has it, with rows of their own in the embedding matrix. It
would be shorter to give a factorised time one place, with the sum of two rows: but no token id stands for a sum, so the
worker would have to make timestamps part of the clip's multimodal embeddings, where its prefix and encoder caches and
whoever reads a prompt no longer see them, and answers would need the two tokens in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from timepro.timestamps import HOW_TO_COVER, TimestampVocabulary, vocabulary_of

CONFIG_KEY = "astp"  # the key in a checkpoint's text-side configuration under which `AstpLayout` is stored


@dataclass(frozen=True)
class AstpLayout:
    """How timestamps are interleaved with audio frames; stored in the checkpoint's `config.json`.

    Args:
        enabled: off gives the backbone's own prompt, audio frames alone.
        first_token_id: id of the vocabulary's first token; the others follow it one by one.
        stride: seconds between two times of the vocabulary.
        duration: seconds that the vocabulary covers.
        every: a timestamp for every `every`-th audio frame.
        position: "after" or "before" the frame it names.
        banned_token_ids: tokens that an answer must never hold (audio placeholders, padding). The worker's logits and
            the learner's are masked alike, so the two distributions stay the same.
        answer_style: "timestamps" or "digits", how this checkpoint writes times in its answers.
        style: "table" or "factorised", the vocabulary's tokens (`timepro.timestamps`).
    """

    enabled: bool = True
    first_token_id: int = -1
    stride: float = 0.04
    duration: float = 30.0
    every: int = 1
    position: str = "after"
    banned_token_ids: tuple[int, ...] = ()
    answer_style: str = "digits"
    style: str = "table"

    def __post_init__(self) -> None:
        if self.position not in ("after", "before"):
            raise ValueError(f"astp.position is {self.position!r}; it must be 'after' or 'before'")
        if self.every < 1:
            raise ValueError(f"astp.every is {self.every}; it must be at least 1 (a timestamp for every frame)")
        if self.answer_style not in ("timestamps", "digits"):
            raise ValueError(f"astp.answer_style is {self.answer_style!r}; it must be 'timestamps' or 'digits'")
        if self.enabled and self.first_token_id < 0:
            raise ValueError("astp.first_token_id is not set: this checkpoint's tokenizer has no timestamp tokens yet")
        object.__setattr__(self, "banned_token_ids", tuple(self.banned_token_ids))
        _ = self.vocabulary  # which a wrong style or grid does not have

    @property
    def vocabulary(self) -> TimestampVocabulary:
        return vocabulary_of(self.style, self.stride, self.duration)

    @property
    def token_ids(self) -> range:
        """The ids of all timestamp tokens."""
        return range(self.first_token_id, self.first_token_id + self.vocabulary.size)

    @classmethod
    def from_config(cls, config: Any) -> AstpLayout:
        """Read the layout from a Hugging Face configuration; a checkpoint without one has ASTP off."""
        stored = getattr(config, CONFIG_KEY, None)
        if stored is None:
            return cls(enabled=False)
        if not isinstance(stored, Mapping):
            raise ValueError(f"the checkpoint's {CONFIG_KEY} entry is {type(stored).__name__}, not a mapping")
        return cls(**stored)

    def to_config(self) -> dict[str, Any]:
        """The JSON-ready form that `from_config` reads."""
        return asdict(self) | {"banned_token_ids": list(self.banned_token_ids)}

    def __str__(self) -> str:
        """What a model card says."""
        if self.first_token_id < 0:
            return "none"
        frames = "audio frame" if self.every == 1 else f"{self.every} audio frames"
        places = f"one {self.position} every {frames}" if self.enabled else "not in prompts"
        return f"{self.vocabulary}; {places}; answers in {self.answer_style}"


def check_covered(n_frames: int, layout: AstpLayout, frame_rate: float) -> None:
    """Raise ValueError where a clip of F audio frames needs a timestamp beyond the vocabulary's range."""
    if not layout.enabled or not n_frames:
        return
    vocabulary = layout.vocabulary
    last = (n_frames - 1) // layout.every * layout.every
    if last / frame_rate > (vocabulary.steps - 1) * layout.stride + 1e-6:
        raise ValueError(
            f"the clip of {n_frames / frame_rate:g} s ({n_frames} audio frames) is longer than the vocabulary's "
            f"{layout.duration:g} s: the timestamps end at {vocabulary.stamp(vocabulary.steps - 1)}; cut the clip, or "
            f"{HOW_TO_COVER}"
        )


def clip_tokens(n_frames: int, layout: AstpLayout) -> int:
    """How many tokens a clip of F audio frames has in the prompt: the length of what `interleave` gives."""
    stamps = -(-n_frames // layout.every) if layout.enabled else 0
    return n_frames + stamps * layout.vocabulary.tokens_a_time


def interleave(n_frames: int, audio_token_id: int, layout: AstpLayout, frame_rate: float) -> list[int]:
    """Token ids of one clip: audio placeholders with timestamps between them.

    Args:
        n_frames: F, audio frames that the encoder gives for the clip.
        audio_token_id: the placeholder that an audio frame's embedding replaces.
        layout: where timestamps go.
        frame_rate: audio frames a second (25 for the Whisper-style encoders of the supported families).

    Returns:
        F placeholders and, with ASTP on, ceil(F / every) timestamps of one or two tokens.

    Raises:
        ValueError: the clip needs a timestamp beyond the vocabulary's range.
    """
    if not layout.enabled:
        return [audio_token_id] * n_frames
    check_covered(n_frames, layout, frame_rate)
    vocabulary = layout.vocabulary
    ids: list[int] = []
    for frame in range(n_frames):
        if frame % layout.every:
            ids.append(audio_token_id)
            continue
        index = round(frame / frame_rate / layout.stride)
        timestamp = [layout.first_token_id + place for place in vocabulary.spelling(index)]
        ids += [*timestamp, audio_token_id] if layout.position == "before" else [audio_token_id, *timestamp]
    return ids


def timestamps_in(prompt_ids: Sequence[int], layout: AstpLayout) -> list[tuple[float, list[int]]]:
    """The timestamps of an expanded prompt: the time of each in seconds, and the places of its tokens."""
    vocabulary, length, found = layout.vocabulary, layout.vocabulary.tokens_a_time, []
    for start in range(len(prompt_ids) - length + 1):
        spelling = tuple(token - layout.first_token_id for token in prompt_ids[start : start + length])
        index = vocabulary.spelled(spelling)
        if 0 <= index < vocabulary.steps and vocabulary.spelling(index) == spelling:
            found.append((vocabulary.seconds(index), list(range(start, start + length))))
    return found


def expand_prompt(
    prompt_ids: list[int], n_frames: list[int], audio_token_id: int, layout: AstpLayout, frame_rate: float
) -> list[int]:
    """Replace each single audio placeholder of a prompt by its clip's interleaved tokens.

    Args:
        prompt_ids: T token ids with one placeholder a clip, in the order of `n_frames`.

    Raises:
        ValueError: the number of placeholders and of clips differ.
    """
    found = prompt_ids.count(audio_token_id)
    if found != len(n_frames):
        raise ValueError(f"the prompt has {found} audio placeholders for {len(n_frames)} clips; give one a clip")
    frames = iter(n_frames)
    out: list[int] = []
    for token in prompt_ids:
        out += interleave(next(frames), audio_token_id, layout, frame_rate) if token == audio_token_id else [token]
    return out
