"""The auxiliary reward decides between answers that the main reward cannot tell apart, and nothing else."""

from __future__ import annotations

import numpy as np

from rewards.group import Group, Reward
from rewards.registry import register

_EQUAL = 1e-9  # main rewards closer than this are a tie


@register("tie_break", children=("main", "aux"))
class TieBreak:
    """main + share * gap * aux, with gap the smallest difference between the group's distinct main rewards (or 1).

    Since share < 1 and aux lies in [0, 1], no answer overtakes one with a better main reward, while ties are
    ranked in every group: among zeros, among ones and in mixed groups, where `adaptive` ranks ties in flat groups
    only. Raises ValueError for an auxiliary reward outside [0, 1].
    """

    def __init__(self, main: Reward | str = "eb_f1", aux: Reward | str = "miou", share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share must be between 0 and 1, got {share}")
        assert callable(main) and callable(aux), "the registry builds the rewards that stand here by name"
        self.main, self.aux, self.share = main, aux, float(share)

    def __call__(self, group: Group) -> np.ndarray:
        main, aux = self.main(group), self.aux(group)
        if ((aux < 0) | (aux > 1)).any():
            raise ValueError(f"the auxiliary reward must lie in [0, 1], got {aux.min():g} to {aux.max():g}")
        gaps = np.diff(np.sort(main))
        gaps = gaps[gaps > _EQUAL]
        return main + self.share * (gaps.min() if len(gaps) else 1.0) * aux
