"""What training takes: seconds a step, tokens a second, memory."""

from __future__ import annotations

import resource
import time

import torch

from trainer.learner import distributed


def peak_memory_gib() -> dict[str, float]:
    """GiB that this rank has taken at most, by the names that they are logged under."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB
    found = {"memory/rank_peak_gib": kib / 2**20}
    if torch.cuda.is_available():
        found["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


class Usage:
    """Counts steps and tokens, and says how fast they went since it was last asked.

    Attributes:
        tokens: of all steps; a resumed job goes on from those of its checkpoint.
    """

    def __init__(self) -> None:
        self.tokens = 0.0
        self._forget()

    def _forget(self) -> None:
        self._began, self._steps, self._tokens = time.monotonic(), 0, self.tokens

    def add(self, tokens: float) -> None:
        """Count a step and its tokens, those of all ranks."""
        self._steps += 1
        self.tokens += tokens

    def metrics(self) -> dict[str, float]:
        """Numbers for the log, of the slowest rank and of the largest. A collective."""
        seconds = distributed.largest(time.monotonic() - self._began)
        found = {
            "num_tokens": self.tokens,
            "step_time": seconds / max(self._steps, 1),
            "perf/tokens_per_second": (self.tokens - self._tokens) / max(seconds, 1e-9),
        } | distributed.maxima(peak_memory_gib())
        self._forget()
        return found
