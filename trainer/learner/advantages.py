"""Group advantages: how much better than its group an answer was.

Pure functions on the rewards of one group or of all groups of a step; GRPO's is `(r - mean) / (std + epsilon)`
(DeepSeekMath, arXiv 2402.03300, equation 3 with outcome supervision).

A reward that is NaN marks an answer that was not scored. It has left its group: means, deviations and counts are those
of the others, and its advantage is 0. (It must have no weight in the loss either, which is the caller's to see to.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trainer.settings.advantage import BASELINES, SCALES


def is_scored(rewards: np.ndarray) -> np.ndarray:
    """Mask (G,) of the answers that are in the group."""
    return ~np.isnan(rewards)


def centred(rewards: np.ndarray) -> np.ndarray:
    """Rewards (G,) less their group's mean; 0 for an answer that was not scored."""
    scored = is_scored(rewards)
    return np.where(scored, rewards - _scored_only(rewards).mean(), 0.0) if scored.any() else np.zeros(len(rewards))


def group_advantages(
    groups: Sequence[np.ndarray],
    scale: str,
    baseline: str = "mean",
    epsilon: float = 1e-4,
    batch_std: float | None = None,
) -> list[np.ndarray]:
    """Advantages of several groups.

    Args:
        groups: rewards (G,) of each group; NaN for an answer that was not scored.
        scale: "group" divides by each group's own standard deviation (GRPO); "batch" by one scale for all groups
            of the step, the root mean square of the group deviations, which keeps easy groups from being blown up;
            "none" only subtracts the mean (Dr. GRPO, arXiv 2503.20783).
        baseline: what an answer is compared with: the group's "mean", or "leave_one_out", the mean of the group's
            other answers, which does not depend on the answer itself (RLOO, arXiv 2402.14740). It is the first
            times n / (n - 1).
        epsilon: added to the divisor.
        batch_std: the scale for "batch" where the step's groups lie on several ranks; computed from `groups` if None.

    Returns:
        arrays (G,), all zero for a group without spread.

    Raises:
        ValueError: an unknown scale or baseline.
    """
    if scale not in SCALES:
        raise ValueError(f"grpo.advantage.scale is {scale!r}; it must be one of {', '.join(SCALES)}")
    if baseline not in BASELINES:
        raise ValueError(f"grpo.advantage.baseline is {baseline!r}; it must be one of {', '.join(BASELINES)}")
    above = [centred(g) * _share_of_others(g) if baseline == "leave_one_out" else centred(g) for g in groups]
    if scale == "none":
        return above
    if scale == "group":
        return [a / (spread(g) + epsilon) for a, g in zip(above, groups, strict=True)]
    if batch_std is None:
        total, count = squared_deviations(groups)
        batch_std = math.sqrt(total / max(count, 1))
    return [a / (batch_std + epsilon) for a in above]


def decoupled_advantages(
    groups: Sequence[Mapping[str, np.ndarray]],
    weights: Mapping[str, float],
    scale: str,
    baseline: str = "mean",
    epsilon: float = 1e-4,
    total: Callable[[float], float] = float,
) -> list[np.ndarray]:
    """Advantages from several rewards, each compared with its group on its own before they are added up.

    A reward of small spread counts as much as its weight says, where in a sum of rewards the one of the largest spread
    decides. The sum is divided by its root mean square over the step, so that the size of an update does not depend on
    the number of rewards (GDPO, arXiv 2601.05242).

    Args:
        groups: each group's rewards (G,) by name; NaN for an answer that was not scored. A group without a reward of
            some name (a task's that has another) gets nothing from it.
        weights: of the rewards, by name.
        scale, baseline, epsilon: as in `group_advantages`; with "none" the sum is left as it is.
        total: adds a number up over ranks.

    Returns:
        arrays (G,), all zero for a group in which no reward has a spread.
    """
    summed = [np.zeros(len(next(iter(group.values())))) for group in groups]
    for name, weight in weights.items():
        values = [group.get(name, np.zeros(len(sums))) for group, sums in zip(groups, summed, strict=True)]
        squares, count = map(total, squared_deviations(values))
        own = group_advantages(values, scale, baseline, epsilon, batch_std=math.sqrt(squares / max(count, 1.0)))
        for sums, advantages in zip(summed, own, strict=True):
            sums += weight * advantages
    if scale == "none":
        return summed
    squares, count = total(float(sum((s**2).sum() for s in summed))), total(float(sum(len(s) for s in summed)))
    return [sums / (math.sqrt(squares / max(count, 1.0)) + epsilon) for sums in summed]


def _share_of_others(rewards: np.ndarray) -> float:
    """n / (n - 1) for the n answers that were scored: turns a deviation from the mean into one from the others'."""
    n = int(is_scored(rewards).sum())
    return n / (n - 1) if n > 1 else 0.0


def squared_deviations(groups: Sequence[np.ndarray]) -> tuple[float, int]:
    """Sum of squared deviations from the group means, and the number of rewards: what ranks add up for "batch"."""
    return float(sum((centred(g) ** 2).sum() for g in groups)), int(sum(is_scored(g).sum() for g in groups))


def has_spread(rewards: np.ndarray, epsilon: float = 1e-12) -> bool:
    """Whether a group's rewards differ, so that it teaches anything."""
    return spread(rewards) ** 2 > epsilon


def spread(rewards: np.ndarray) -> float:
    """Population standard deviation of a group's rewards; 0 where none was scored."""
    scored = _scored_only(rewards)
    return float(scored.std()) if len(scored) else 0.0


def _scored_only(rewards: np.ndarray) -> np.ndarray:
    return rewards[is_scored(rewards)]
