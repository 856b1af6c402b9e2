"""A profile of some steps of GRPO: `profile.*`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from timepro.config.marks import Count, Natural

FOLDER = "profile"  # of a run's


@dataclass
class ProfileConfig:
    """Traces of learner and workers, and a page that says where the step's time went, in the run's `profile/`."""

    steps: Natural = 0  # to profile; 0: none, and nothing is slower
    after: Natural = 3  # steps before them, whose times without the profiler stand beside
    every_rank: bool = False  # a trace of every learner rank; else of rank 0 alone
    # Of a worker's at most: to write a long trace takes a minute, in which it answers nobody and is taken for dead.
    engine_steps: Count = 50

    def folder(self, run: Path) -> Path | None:
        """Where a run's workers write traces; None where none are asked for."""
        return run / FOLDER if self.steps else None
