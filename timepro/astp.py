"""Audio-Side Time Prompt (ASTP): the layout of audio frames and timestamps in the prompt.

One pure function says which token stands at which place. The learner calls it to build its prompts, the rollout
worker calls it inside vLLM's processor, so both read the same interleaving by construction (arXiv 2604.13715).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from timepro.timestamps import TimestampVocabulary

CONFIG_KEY = "astp"  # the key in a checkpoint's text-side configuration under which `AstpLayout` is stored


@dataclass(frozen=True)
class AstpLayout:
    """How timestamps are interleaved with audio frames; stored in the checkpoint's `config.json`.

    Args:
        enabled: off gives the backbone's own prompt, audio frames alone.
        first_token_id: id of the timestamp of 0 s; the others follow it one by one.
        stride: seconds between two timestamp tokens (the vocabulary's).
        duration: seconds that the vocabulary covers.
        every: a timestamp for every `every`-th audio frame.
        position: "after" or "before" the frame it names.
        banned_token_ids: tokens that an answer must never hold (audio placeholders, padding). The worker's logits and
            the learner's are masked alike, so the two distributions stay the same.
        answer_style: "timestamps" or "digits", how this checkpoint writes times in its answers.
    """

    enabled: bool = True
    first_token_id: int = -1
    stride: float = 0.04
    duration: float = 30.0
    every: int = 1
    position: str = "after"
    banned_token_ids: tuple[int, ...] = ()
    answer_style: str = "digits"

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

    @property
    def vocabulary(self) -> TimestampVocabulary:
        return TimestampVocabulary(self.stride, self.duration)

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


def check_covered(n_frames: int, layout: AstpLayout, frame_rate: float) -> None:
    """Raise ValueError where a clip of F audio frames needs a timestamp beyond the vocabulary's range."""
    if not layout.enabled or not n_frames:
        return
    vocabulary = layout.vocabulary
    last = (n_frames - 1) // layout.every * layout.every
    if last / frame_rate > (vocabulary.size - 1) * layout.stride + 1e-6:
        raise ValueError(
            f"the clip has {n_frames} audio frames ({n_frames / frame_rate:.2f} s), but the timestamps end at "
            f"{vocabulary.token(vocabulary.size - 1)}; give the model a larger model.tiny.timestamps.duration (a "
            "published checkpoint: timepro init-model --duration), or cut the clip"
        )


def interleave(n_frames: int, audio_token_id: int, layout: AstpLayout, frame_rate: float) -> list[int]:
    """Token ids of one clip: audio placeholders with timestamps between them.

    Args:
        n_frames: F, audio frames that the encoder gives for the clip.
        audio_token_id: the placeholder that an audio frame's embedding replaces.
        layout: where timestamps go.
        frame_rate: audio frames a second (25 for the Whisper-style encoders of the supported families).

    Returns:
        F placeholders and, with ASTP on, ceil(F / every) timestamps.

    Raises:
        ValueError: the clip needs a timestamp beyond the vocabulary's range.
    """
    if not layout.enabled:
        return [audio_token_id] * n_frames
    check_covered(n_frames, layout, frame_rate)
    ids: list[int] = []
    for frame in range(n_frames):
        if frame % layout.every:
            ids.append(audio_token_id)
            continue
        timestamp = layout.first_token_id + round(frame / frame_rate / layout.stride)
        ids += [timestamp, audio_token_id] if layout.position == "before" else [audio_token_id, timestamp]
    return ids


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
