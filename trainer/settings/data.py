"""The four manifests, or how to synthesise them: `data.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.config.marks import Count, Natural
from timepro.data.soundscape import SoundscapeConfig
from trainer.settings.feature_cache import FeatureCacheConfig

SPLITS = ("sft", "rl", "validation", "test")


@dataclass
class DataConfig:
    """How many clips of each split to synthesise, and what they are like.

    With manifests named, the synthesiser is not used: `sft`, `rl`, `validation` and `test` are JSONL files.
    """

    sft_clips: Count = 3000
    rl_clips: Count = 600
    validation_clips: Count = 256
    test_clips: Count = 512
    seed: Natural = 0
    soundscape: SoundscapeConfig = field(default_factory=SoundscapeConfig)
    sft: str = ""
    rl: str = ""
    validation: str = ""
    test: str = ""
    feature_cache: FeatureCacheConfig = field(default_factory=FeatureCacheConfig)
