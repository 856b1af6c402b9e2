"""The four manifests, or how to make them: `data.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.config.marks import Count, Natural
from timepro.data.soundbank.settings import BankConfig
from timepro.data.soundscape import SoundscapeConfig
from trainer.settings.feature_cache import FeatureCacheConfig

SPLITS = ("sft", "rl", "validation", "test")
PART_OF = {"sft": "training", "rl": "training", "validation": "validation", "test": "test"}
"""The part of a sound bank whose recordings a split is mixed from (`timepro.data.soundbank.settings.PARTS`)."""


@dataclass
class DataConfig:
    """How many clips of each split to make, and what they are like.

    Soundscapes are mixed of generated sounds, or of the recordings of a sound bank. With manifests named nothing is
    made: `sft`, `rl`, `validation` and `test` are JSONL files.
    """

    sft_clips: Count = 3000
    rl_clips: Count = 600
    validation_clips: Count = 256
    test_clips: Count = 512
    seed: Natural = 0
    soundscape: SoundscapeConfig = field(default_factory=SoundscapeConfig)
    soundbank: str = ""  # a folder of recordings, a sub-folder a class (`timepro data soundbank FOLDER` checks it)
    bank: BankConfig = field(default_factory=BankConfig)
    sft: str = ""
    rl: str = ""
    validation: str = ""
    test: str = ""
    feature_cache: FeatureCacheConfig = field(default_factory=FeatureCacheConfig)
