"""Learning-rate schedules as a pure function of progress."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, progress: float, warmup_steps: int, flat: float, floor: float) -> float:
    """What the peak learning rate is multiplied by.

    Args:
        step: updates done so far; the first `warmup_steps` rise linearly to the peak.
        progress: share of the whole training that is over, in [0, 1] (by steps or by time, as the run is bounded).
        warmup_steps: 0 for none.
        flat: share of the training at the peak before the cosine begins; 1 keeps it constant.
        floor: where the cosine ends, as a share of the peak.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    if flat >= 1.0:
        return warmup
    fraction = min(1.0, max(0.0, (progress - flat) / (1.0 - flat)))
    return warmup * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * fraction)))
