"""How much memory a run takes."""

from __future__ import annotations

import threading

import psutil


class MemoryWatch:
    """Samples the memory of this process and all it started; shared pages count once (PSS)."""

    def __init__(self, interval_s: float = 2.0) -> None:
        self.peak_bytes = self._recent = self._taken = 0
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)

    def take_peak_gib(self) -> float:
        """The most since this was last called."""
        self._taken += 1
        peak, self._recent = self._recent, 0
        return peak / 2**30

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _sample(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.look()

    def look(self) -> None:
        """Take one sample. One during which the peak was taken belongs to what was before."""
        me, taken, total = psutil.Process(), self._taken, 0
        for process in [me, *me.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # ended between listing and reading
        self.peak_bytes = max(self.peak_bytes, total)
        if taken == self._taken:
            self._recent = max(self._recent, total)
