"""The adaptive temporal reward of TimePro-RL (arXiv 2604.13715): a second opinion where the first says nothing."""

from __future__ import annotations

import numpy as np

from rewards.group import Group, Reward
from rewards.registry import register


@register("adaptive", children=("main", "aux"))
class Adaptive:
    """main * aux (element-wise) in a group where the population variance of main is below epsilon, else main.

    A group of equal positive main rewards is thus re-ranked by aux; a group of zeros stays zero and teaches nothing.
    """

    def __init__(self, main: Reward | str = "eb_f1", aux: Reward | str = "miou", epsilon: float = 1e-6) -> None:
        assert callable(main) and callable(aux), "the registry builds the rewards that stand here by name"
        self.main, self.aux, self.epsilon = main, aux, float(epsilon)

    def __call__(self, group: Group) -> np.ndarray:
        # Both are computed always, so that both are recorded for every group.
        main, aux = self.main(group), self.aux(group)
        return main * aux if np.var(main) < self.epsilon else main
