"""A reward of its own for each task, where several are trained at once."""

from __future__ import annotations

import numpy as np

from rewards.group import Group, Reward
from rewards.registry import register


@register("by_task", children=("sed", "ag", "dac"))
class ByTask:
    """The reward that is named for the group's task. Groups are compared within themselves, so scales may differ."""

    def __init__(self, sed: Reward | None = None, ag: Reward | None = None, dac: Reward | None = None) -> None:
        self.rewards = {name: reward for name, reward in (("sed", sed), ("ag", ag), ("dac", dac)) if reward is not None}
        if not self.rewards:
            raise ValueError("name a reward for at least one task: sed, ag, dac")

    def asks(self, group: Group) -> list[Reward]:
        """The reward that will be called for a group: the others have no work with it."""
        return [self.rewards[group.task]] if group.task in self.rewards else []

    def __call__(self, group: Group) -> np.ndarray:
        if group.task not in self.rewards:
            raise ValueError(f"no reward is named for task {group.task!r}; add the key {group.task!r} to by_task")
        return self.rewards[group.task](group)
