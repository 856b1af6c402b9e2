"""Several rewards in the order of what matters: the first one that tells a group's answers apart decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewards.group import Group
from rewards.registry import register


@register("cascade", children=("stages",))
class Cascade:
    """The first of `stages` whose population variance within the group is at least epsilon; if none has, the first.

    stages: a list of mappings {reward: spec}. All stages are computed, so that all are recorded for every group.
    """

    def __init__(self, stages: Sequence[dict[str, Any]], epsilon: float = 1e-6) -> None:
        if not isinstance(stages, (list, tuple)) or not stages:
            raise ValueError("stages must be a list of at least one {reward: ...}")
        for index, stage in enumerate(stages):
            if unknown := set(stage) - {"reward"}:
                raise ValueError(f"stages[{index}]: unknown keys {sorted(unknown)}; valid: reward")
        self.stages, self.epsilon = [stage["reward"] for stage in stages], float(epsilon)

    def __call__(self, group: Group) -> np.ndarray:
        values = [stage(group) for stage in self.stages]
        return next((value for value in values if np.var(value) >= self.epsilon), values[0])
