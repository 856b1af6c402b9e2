"""Group advantages: how much better than its group an answer was.

Pure functions on the rewards of one group or of all groups of a step; GRPO's is `(r - mean) / (std + epsilon)`
(DeepSeekMath, arXiv 2402.03300, equation 3 with outcome supervision).

A reward that is NaN marks an answer that was not scored. It has left its group: means, deviations and counts are those
of the others, and its advantage is 0. (It must have no weight in the loss either, which is the caller's to see to.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SCALES = ("group", "batch", "none")


def is_scored(rewards: np.ndarray) -> np.ndarray:
    """Mask (G,) of the answers that are in the group."""
    return ~np.isnan(rewards)


def centred(rewards: np.ndarray) -> np.ndarray:
    """Rewards (G,) less their group's mean; 0 for an answer that was not scored."""
    scored = is_scored(rewards)
    return np.where(scored, rewards - _scored_only(rewards).mean(), 0.0) if scored.any() else np.zeros(len(rewards))


def group_advantages(
    groups: Sequence[np.ndarray], scale: str, epsilon: float = 1e-4, batch_std: float | None = None
) -> list[np.ndarray]:
    """Advantages of several groups.

    Args:
        groups: rewards (G,) of each group; NaN for an answer that was not scored.
        scale: "group" divides by each group's own standard deviation (GRPO); "batch" by one scale for all groups
            of the step, the root mean square of the group deviations, which keeps easy groups from being blown up;
            "none" only subtracts the mean (Dr. GRPO, arXiv 2503.20783).
        epsilon: added to the divisor.
        batch_std: the scale for "batch" where the step's groups lie on several ranks; computed from `groups` if None.

    Returns:
        arrays (G,), all zero for a group without spread.

    Raises:
        ValueError: an unknown scale.
    """
    if scale not in SCALES:
        raise ValueError(f"trainer.advantage_scale is {scale!r}; it must be one of {', '.join(SCALES)}")
    if scale == "none":
        return [centred(g) for g in groups]
    if scale == "group":
        return [centred(g) / (spread(g) + epsilon) for g in groups]
    if batch_std is None:
        total, count = squared_deviations(groups)
        batch_std = math.sqrt(total / max(count, 1))
    return [centred(g) / (batch_std + epsilon) for g in groups]


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
