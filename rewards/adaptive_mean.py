"""The adaptive reward with a mean in place of the product: a group of zeros is ranked too."""

from __future__ import annotations

import numpy as np

from rewards.group import Group, Reward
from rewards.registry import register


@register("adaptive_mean", children=("main", "aux"))
class AdaptiveMean:
    """(main + aux) / 2 in a group where the population variance of main is below epsilon, else main.

    Differs from `adaptive` where all main rewards are zero: the product leaves such a group without any signal,
    the mean ranks it by aux.
    """

    def __init__(self, main: Reward | str = "eb_f1", aux: Reward | str = "miou", epsilon: float = 1e-6) -> None:
        assert callable(main) and callable(aux), "the registry builds the rewards that stand here by name"
        self.main, self.aux, self.epsilon = main, aux, float(epsilon)

    def __call__(self, group: Group) -> np.ndarray:
        main, aux = self.main(group), self.aux(group)
        return (main + aux) / 2 if np.var(main) < self.epsilon else main
