"""How an answer is compared with its group: `grpo.advantage.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

SCALES = ("group", "batch", "none")
BASELINES = ("mean", "leave_one_out")


@dataclass
class AdvantageConfig:
    """Baseline and scale; see `trainer.learner.advantages` for the formulas and their sources."""

    baseline: str = "mean"  # or leave_one_out: the mean of the group's other answers
    scale: str = "group"  # or batch: one scale for all groups of the step, or none
    # Weights by name of recorded rewards, each compared with its group on its own; empty: the reward as a whole.
    parts: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raises ValueError for an unknown baseline or scale."""
        for key, allowed in (("baseline", BASELINES), ("scale", SCALES)):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"grpo.advantage.{key} is {getattr(self, key)!r}; it must be one of {', '.join(allowed)}"
                )
