"""Whether a run is going on: the command that trains holds a lock in the run's folder, which ends with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = "run.lock"


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run's folder.

    Raises:
        ValueError: another process does.
    """
    with (run / _LOCK).open("a+", encoding="utf-8") as lock:
        if not _taken(lock.fileno()):
            raise ValueError(f"{run} is in use by process {_owner(run)}; end it, or give another name=")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def owner_of(run: Path) -> str:
    """The id of the process that trains in a run's folder; empty where none does."""
    path = run / _LOCK
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8") as lock:
        return "" if _taken(lock.fileno(), fcntl.LOCK_SH) else _owner(run)


def _taken(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock could be had."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(run: Path) -> str:
    return (run / _LOCK).read_text(encoding="utf-8").strip() or "?"
