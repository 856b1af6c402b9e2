"""One monitor for one folder: two would send the same messages, and overwrite each other's state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from timepro.run_lock import owner_of, run_lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a monitor's folder, for as long as this process lives.

    Raises:
        ValueError: another monitor does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if owner := owner_of(folder):
        raise ValueError(f"{folder} is in use by the monitor of process {owner}; end it, or use another --folder")
    with run_lock(folder):
        yield
