"""A run's resumable checkpoints: `step-N` folders, the newest few of them and the best, each whole or not there.

Saving is a collective. A failure on one rank, a full disk above all, must not leave the others waiting in the next
collective: every write goes through a `WriteGuard`, which keeps the error until all ranks ask each other how it went.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.system.files import write_json
from trainer.learner import distributed
from trainer.learner.checkpoint_files import newest_whole
from trainer.settings.checkpoints import CheckpointsConfig

if TYPE_CHECKING:
    from trainer.learner.learner import Learner

_BEST = "best.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SaveFailed(ValueError):
    """A checkpoint could not be written. On every rank."""


def disk_trouble(error: BaseException) -> bool:
    """Whether an error says that a disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


class WriteGuard:
    """This rank's writes of one checkpoint: after the first that fails none is tried."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def attempt(self, write: Callable[[], Any]) -> None:
        """Write, and keep the error: an OSError, or torch's RuntimeError for the same."""
        if self.error is None:
            try:
                write()
            except (OSError, RuntimeError) as error:
                self.error = error

    def agree(self, folder: Path) -> None:
        """Go on only where no rank's writes failed. A collective.

        Raises:
            SaveFailed: on every rank; what was written is removed.
        """
        if self.error is not None:
            free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
            print(
                f"  learner rank {distributed.rank()} could not write {folder}: {self.error} "
                f"({free / 2**30:.2f} GiB free on its disk)",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        failed = distributed.from_every([float(self.error is not None)])
        if not any(failed):
            return
        if distributed.rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        distributed.barrier()
        ranks = ", ".join(str(rank) for rank, value in enumerate(failed) if value)
        raise SaveFailed(f"checkpoint {folder} was not written (learner rank {ranks}: see above); free some space")

    @contextmanager
    def around(self, engine: Any) -> Iterator[None]:
        """DeepSpeed's own writes inside go through `attempt`: all its ranks reach the end of its collectives."""
        inner, copy = engine.checkpoint_engine, engine._copy_recovery_script
        engine.checkpoint_engine = _Guarded(inner, self)
        engine._copy_recovery_script = lambda path: self.attempt(lambda: copy(path))
        try:
            yield
        finally:
            engine.checkpoint_engine, engine._copy_recovery_script = inner, copy


class _Guarded:
    """A DeepSpeed checkpoint engine whose `save` reports to a guard instead of raising."""

    def __init__(self, inner: Any, guard: WriteGuard) -> None:
        self._inner, self._guard = inner, guard

    def save(self, state_dict: Any, path: Any) -> None:
        self._guard.attempt(lambda: self._inner.save(state_dict, path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


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
        if distributed.from_first([float((folder / "state.json").is_file())])[0]:
            return True  # the last regular one was of this very step
        try:
            learner.save(folder, dict(state), with_encoder, own_files)
        except SaveFailed as error:
            self.failures += 1
            if self.config.on_failure == "stop":
                raise
            if distributed.rank() == 0:
                print(f"  {error}. Going on without it; older ones are as they were", file=sys.stderr, flush=True)
            return False
        if distributed.rank() == 0:
            best = self._best().get("step")
            for old in sorted(self.folder.glob("step-*"))[: -self.config.keep]:
                if old.name != best:
                    shutil.rmtree(old)
        return True

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole, or None. A collective: rank 0 looks."""
        found = newest_whole(self.folder) if distributed.rank() == 0 else None
        step = int(distributed.from_first([float(found.name.removeprefix("step-")) if found else -1.0])[0])
        return self.folder / f"step-{step:06d}" if step >= 0 else None

    def is_best(self, value: float) -> bool:
        """Whether no step noted by `note_best` had this value or a higher one. A collective: rank 0's value counts."""
        better = distributed.rank() == 0 and value > self._best().get("value", float("-inf"))
        return bool(distributed.from_first([float(better)])[0])

    def note_best(self, step: int, value: float) -> None:
        """Keep this step's checkpoint, which is there, in the place of the best one before. A collective."""
        if distributed.rank() == 0:
            before, name = self._best().get("step"), f"step-{step:06d}"
            write_json(self.folder / _BEST, {"step": name, "value": value})
            newest = {path.name for path in sorted(self.folder.glob("step-*"))[-self.config.keep :]}
            if before and before not in newest | {name}:
                shutil.rmtree(self.folder / before, ignore_errors=True)
        distributed.barrier()

    def best(self) -> Path | None:
        """The checkpoint that `note_best` kept, or None. A collective: rank 0 looks."""
        name = self._best().get("step", "") if distributed.rank() == 0 else ""
        step = int(distributed.from_first([float(name.removeprefix("step-")) if name else -1.0])[0])
        return self.folder / f"step-{step:06d}" if step >= 0 else None

    def _best(self) -> dict[str, Any]:
        path = self.folder / _BEST
        return json.loads(path.read_text()) if path.is_file() else {}
