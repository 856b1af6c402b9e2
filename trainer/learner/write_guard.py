"""Writing a checkpoint on all ranks, or on none.

Saving is a collective. A failure on one rank, a full disk above all, must not leave the others waiting in the next
collective: every write goes through a `WriteGuard`, which keeps the error until all ranks ask each other how it went.
"""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.learner import distributed

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
        failed = distributed.from_every(self.error is not None)
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
