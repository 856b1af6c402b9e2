"""Where a job is, for `timepro status`: written every few seconds, beside the job's metrics."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from timepro.status.files import EVERY_S, Progress, write_progress


class PlaceWriter:
    """Writes in a thread of its own, so that the loop never waits for a disk; of rank 0.

    Args:
        work: the folder of the job's metrics.
        kind: "sft" or "grpo".
    """

    def __init__(self, work: Path, kind: str, interval_s: float = EVERY_S) -> None:
        self._work, self._kind, self._interval_s = work, kind, interval_s
        self._place = (0, 0, "start", time.time())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="place", daemon=True)
        self._thread.start()

    def at(self, step: int, of: int, phase: str) -> None:
        """The job is now at this step, of `of` (0 where time bounds it), and begins this phase."""
        self._place = (step, of, phase, time.time())

    def close(self) -> None:
        """Write a last time, and stop."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            ended = self._stop.wait(self._interval_s)
            step, of, phase, began = self._place
            with contextlib.suppress(OSError):  # a full disk: checkpoints say so, and the last sign's time shows it
                write_progress(self._work, Progress(self._kind, step, of, phase, began, time.time()))
            if ended:
                return
