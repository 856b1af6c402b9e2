"""How much memory a run takes."""

from __future__ import annotations

import threading

import psutil


class MemoryWatch:
    """Samples the memory of this process and all it started; shared pages count once (PSS)."""

    def __init__(self, interval_s: float = 2.0) -> None:
        self.peak_bytes = self._recent = 0
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)

    def take_peak_gib(self) -> float:
        """The most since this was last called."""
        peak, self._recent = self._recent, 0
        return peak / 2**30

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(self._interval_s):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # ended between listing and reading
            self.peak_bytes = max(self.peak_bytes, total)
            self._recent = max(self._recent, total)
