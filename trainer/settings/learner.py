"""The learner's processes: `learner.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LearnerConfig:
    """The learner's processes."""

    ranks: int = 2  # on each node that learns
    threads: int = 1  # CPU threads of a rank
    gpus: str = ""  # CUDA_VISIBLE_DEVICES of the ranks, comma-separated; empty: as inherited
    start_timeout_s: float = 300.0
    silence_timeout_s: float = 15.0  # a rank that something has stopped for so long ends the run
    stop_timeout_s: float = 90.0  # from a signal to a saved checkpoint; then the ranks are ended
