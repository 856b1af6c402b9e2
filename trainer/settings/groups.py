"""How groups of answers are drawn: `grpo.groups.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from timepro.config.marks import Count, Natural, Positive, at_least

FLAT_GROUPS = ("skip", "resample")


@dataclass
class GroupsConfig:
    """A step's prompts and the answers to each."""

    prompts_per_step: Count = 24  # over all ranks
    group_size: Annotated[int, at_least(2)] = 8
    temperature: Positive = 1.0  # a group of equal answers would teach nothing
    max_tokens: Count = 32
    flat_groups: str = "skip"  # a group without spread: left out, or "resample": another prompt takes its place
    resample_rounds: Natural = 2  # times that flat groups of a step are drawn again, at most
    order: str = "mixture"  # of the prompts; or a class of your own, module:Class (see trainer/learner/order.py)

    def check(self) -> None:
        """Raises ValueError for a group that teaches nothing, or an unknown way with flat ones."""
        if self.flat_groups not in FLAT_GROUPS:
            raise ValueError(f"grpo.groups.flat_groups is {self.flat_groups!r}; it must be {' or '.join(FLAT_GROUPS)}")
        if self.order != "mixture" and ":" not in self.order:
            raise ValueError(f"grpo.groups.order is {self.order!r}; it must be mixture, or a class as module:Class")
        if self.group_size < 2:
            raise ValueError(
                f"grpo.groups.group_size is {self.group_size}; a group needs at least 2 answers to compare"
            )
