"""The learner's processes: `learner.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Count, Positive


@dataclass
class LearnerConfig:
    """The learner's processes."""

    ranks: Count = 2  # on each node that learns
    threads: Count = 1  # CPU threads of a rank
    gpus: str = ""  # CUDA_VISIBLE_DEVICES of the ranks, comma-separated; empty: as inherited
    start_timeout_s: Positive = 300.0
    silence_timeout_s: Positive = 15.0  # a rank that something has stopped for so long ends the run
    stop_timeout_s: Positive = 90.0  # from a signal to a saved checkpoint; then the ranks are ended
