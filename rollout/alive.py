"""Signs of life of a worker whose engine is busy with its weights.

While a worker meets its peers, takes in weights or loads them, vLLM's engine answers nobody, which may last longer than
a hung engine is given. So the process that does it writes the time into a file five times a second, and the launcher,
on the same machine, reads it. A process that is stopped or gone writes nothing. One that hangs in such a state stops
giving signs once it has made no progress for longer than that state's own deadlines allow.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE_VARIABLE = "TIMEPRO_ALIVE_FILE"
_EVERY_S = 0.2


@contextmanager
def signs_of_life(limit_s: float) -> Iterator[Callable[[], None]]:
    """Give them while the context is open; none where no launcher has said where to.

    Args:
        limit_s: without progress for so long, no more signs are given.

    Yields:
        what to call at every progress.
    """
    path = os.environ.get(FILE_VARIABLE)
    if not path:
        yield lambda: None
        return
    signs = _Signs(Path(path), limit_s)
    try:
        yield signs.progress
    finally:
        signs.end()


def last_sign(path: Path) -> float:
    """When the last one was given, on the clock of `time.monotonic`, which all processes of a machine share."""
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet
        return float("-inf")


class _Signs:
    """The thread that writes."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path, self._limit_s = path, limit_s
        # The processes of a tensor-parallel worker share a path.
        self._own = path.with_name(f"{path.name}.{os.getpid()}")
        self._progress = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs-of-life", daemon=True)
        self._thread.start()

    def progress(self) -> None:
        self._progress = time.monotonic()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            self._own.unlink()

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            if now - self._progress < self._limit_s:
                with suppress(OSError):  # a disk that is full for a moment: a later sign still comes in time
                    self._own.write_text(repr(now), encoding="utf-8")
                    os.replace(self._own, self._path)  # never seen half-written
            if self._ended.wait(_EVERY_S):
                return
