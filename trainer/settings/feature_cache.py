"""Features of clips on disk: `data.feature_cache.*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from timepro.config.marks import NotNegative
from timepro.feature_cache import CachePlace


@dataclass
class FeatureCacheConfig:
    """Where learner and workers keep what they have computed of clips, for each other and for later runs."""

    folder: str = ""  # empty: `cache/features` in the folder of runs; with several nodes best a disk that each has
    gigabytes: NotNegative = 4.0  # 8,000 clips of 10 s; the least recently used go first. 0 keeps nothing

    def place(self, runs: str) -> CachePlace:
        """Of this node, for processes that may run in another folder."""
        folder = Path(self.folder).expanduser() if self.folder else Path(runs) / "cache" / "features"
        return CachePlace(str(folder.resolve()), self.gigabytes)
