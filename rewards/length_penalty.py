"""A price on long answers, for a weighted sum with another reward."""

from __future__ import annotations

import numpy as np

from rewards.group import Group
from rewards.registry import register


@register("length_penalty", per_completion=True)
class LengthPenalty:
    """0 for answers of up to `free` tokens, then falling linearly to -1 at `limit` tokens and beyond, or when cut off.

    This is the soft overlong punishment of DAPO (arXiv 2503.14476, equation 13) with L_max = limit and
    L_cache = limit - free.
    """

    def __init__(self, free: int, limit: int) -> None:
        if not 0 <= free < limit:
            raise ValueError(f"need 0 <= free < limit (tokens), got free={free} and limit={limit}")
        self.free, self.limit = free, limit

    def __call__(self, group: Group) -> np.ndarray:
        tokens = np.array([completion.n_tokens for completion in group.completions], dtype=np.float64)
        truncated = np.array([completion.truncated for completion in group.completions], dtype=bool)
        falling = np.clip((self.free - tokens) / (self.limit - self.free), -1.0, 0.0)
        return np.where(truncated, -1.0, falling)
