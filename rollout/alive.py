"""Signs of life of a worker that takes in weights.

While weights come in, vLLM's engine answers nobody, which may last longer than a hung engine is given. So the process
that takes them in writes the time into a file five times a second, and the launcher, on the same machine, reads it. A
process that is stopped or gone writes nothing; one that waits for its learner does, and the stream's own deadline ends
that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_VARIABLE = "TIMEPRO_ALIVE_FILE"
_EVERY_S = 0.2


@contextmanager
def signs_of_life() -> Iterator[None]:
    """Write them while the context is open; nothing where no launcher has said where to."""
    path = os.environ.get(FILE_VARIABLE)
    if not path:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_write, args=(Path(path), ended), name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def last_sign(path: Path) -> float:
    """When the last one was given, on the clock of `time.monotonic`, which all processes of a machine share."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # none yet, or half-written
        return float("-inf")


def _write(path: Path, ended: threading.Event) -> None:
    while True:
        path.write_text(repr(time.monotonic()))
        if ended.wait(_EVERY_S):
            return
