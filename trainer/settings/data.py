"""The four manifests, or how to synthesise them: `data.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.data.soundscape import SoundscapeConfig

SPLITS = ("sft", "rl", "validation", "test")


@dataclass
class DataConfig:
    """How many clips of each split to synthesise, and what they are like.

    With manifests named, the synthesiser is not used: `sft`, `rl`, `validation` and `test` are JSONL files.
    """

    sft_clips: int = 3000
    rl_clips: int = 600
    validation_clips: int = 256
    test_clips: int = 512
    seed: int = 0
    soundscape: SoundscapeConfig = field(default_factory=SoundscapeConfig)
    sft: str = ""
    rl: str = ""
    validation: str = ""
    test: str = ""
