"""A reward of its own for each task, where several are trained at once."""

from __future__ import annotations

import numpy as np

from rewards.group import Group, Reward
from rewards.registry import EVERY_PARAMETER, register
from timepro.tasks import available_tasks, find_task


@register("by_task", children=EVERY_PARAMETER)
class ByTask:
    """The reward that is named for the group's task. Groups are compared within themselves, so scales may differ.

    Args:
        rewards: by a task's name or import path.
    """

    def __init__(self, **rewards: Reward) -> None:
        if not rewards:
            raise ValueError(f"name a reward for at least one task: {', '.join(available_tasks())}")
        self.rewards: dict[str, Reward] = {}
        for key, reward in rewards.items():
            name = find_task(key, f"by_task.{key}").name
            if name in self.rewards:
                raise ValueError(f"two rewards are named for task {name!r}; remove one of them")
            self.rewards[name] = reward

    def asks(self, group: Group) -> list[Reward]:
        """The reward that will be called for a group: the others have no work with it."""
        return [self.rewards[group.task]] if group.task in self.rewards else []

    def for_task(self, task: str) -> Reward:
        """The reward of a task.

        Raises:
            ValueError: none is named for it.
        """
        if task not in self.rewards:
            raise ValueError(f"no reward is named for task {task!r}; add the key {task!r} to by_task")
        return self.rewards[task]

    def __call__(self, group: Group) -> np.ndarray:
        return self.for_task(group.task)(group)
