"""A run's resumable checkpoints: `step-N` folders, the newest few of them and the best, each whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timepro.system.files import write_json
from trainer.learner import distributed
from trainer.learner.checkpoint_files import STATE, newest_whole
from trainer.learner.learner import Learner
from trainer.learner.write_guard import SaveFailed
from trainer.settings.checkpoints import CheckpointsConfig

_BEST = "best.json"


class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        failures: saves that failed and were passed over.
    """

    def __init__(self, folder: Path, config: CheckpointsConfig) -> None:
        self.folder, self.config = folder, config
        self.failures = 0

    def save(
        self,
        learner: Learner,
        step: int,
        state: Mapping[str, Any],
        with_encoder: bool = False,
        own_files: Mapping[str, str] | None = None,
    ) -> bool:
        """Write `step-N`, unless it is there, and remove those that are too old. A collective; see `Learner.save`.

        Returns:
            whether it is there.

        Raises:
            SaveFailed: it is not, and `on_failure` says to stop.
        """
        folder = self.folder / f"step-{step:06d}"
        if distributed.from_first((folder / STATE).is_file()):
            return True  # the last regular one was of this very step
        try:
            learner.save(folder, dict(state), with_encoder, own_files)
        except SaveFailed as error:
            self.failures += 1
            if self.config.on_failure == "stop":
                raise
            distributed.say(f"{error}. Going on without it; older ones are as they were")
            return False
        if distributed.is_first():
            best = self._best().get("step")
            for old in sorted(self.folder.glob("step-*"))[: -self.config.keep]:
                if old.name != best:
                    shutil.rmtree(old)
        return True

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole, or None. A collective: rank 0 looks."""
        found = newest_whole(self.folder) if distributed.is_first() else None
        name = distributed.from_first(found.name if found else None)
        return self.folder / name if name else None

    def is_best(self, value: float) -> bool:
        """Whether no step noted by `note_best` had this value or a higher one. A collective: rank 0's value counts."""
        better = distributed.is_first() and value > self._best().get("value", float("-inf"))
        return distributed.from_first(better)

    def note_best(self, step: int, value: float) -> None:
        """Keep this step's checkpoint, which is there, in the place of the best one before. A collective."""
        if distributed.is_first():
            before, name = self._best().get("step"), f"step-{step:06d}"
            write_json(self.folder / _BEST, {"step": name, "value": value})
            newest = {path.name for path in sorted(self.folder.glob("step-*"))[-self.config.keep :]}
            if before and before not in newest | {name}:
                shutil.rmtree(self.folder / before, ignore_errors=True)
        distributed.barrier()

    def best(self) -> Path | None:
        """The checkpoint that `note_best` kept, or None. A collective: rank 0 looks."""
        name = distributed.from_first(self._best().get("step") if distributed.is_first() else None)
        return self.folder / name if name else None

    def _best(self) -> dict[str, Any]:
        path = self.folder / _BEST
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
