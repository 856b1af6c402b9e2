"""Where worker and learner disagree about the probability of what was sampled: `grpo.objective.mismatch.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from timepro.config.marks import at_least

MODES = ("off", "truncate", "mask")
LEVELS = ("token", "sequence")


@dataclass
class MismatchConfig:
    """Correction of the difference between worker and learner."""

    mode: str = "off"  # truncate: w is at most cap; mask: what has w outside [1 / cap, cap] is left out
    level: str = "token"  # or sequence: one w an answer, the product of its tokens'
    cap: Annotated[float, at_least(1)] = 2.0

    def check(self) -> None:
        """Raises ValueError for an unknown name or a cap below 1."""
        for key, allowed in (("mode", MODES), ("level", LEVELS)):
            if getattr(self, key) not in allowed:
                known = ", ".join(allowed)
                raise ValueError(f"grpo.objective.mismatch.{key} is {getattr(self, key)!r}; it must be one of {known}")
        if self.cap < 1:
            raise ValueError(f"grpo.objective.mismatch.cap is {self.cap}; it must be at least 1")
