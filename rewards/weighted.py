"""A weighted sum of rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rewards.group import Group
from rewards.registry import register


@register("weighted", children=("terms",))
class Weighted:
    """Sum of weight * reward over ``terms``, a list of mappings {reward: spec, weight: number (default 1)}."""

    def __init__(self, terms: Sequence[dict[str, Any]]) -> None:
        if not isinstance(terms, (list, tuple)) or not terms:
            raise ValueError("terms must be a list of at least one {reward: ..., weight: ...}")
        for index, term in enumerate(terms):
            if unknown := set(term) - {"reward", "weight"}:
                raise ValueError(f"terms[{index}]: unknown keys {sorted(unknown)}; valid: reward, weight")
            if not math.isfinite(float(term.get("weight", 1.0))):
                raise ValueError(f"terms[{index}]: weight {term['weight']} is not finite")
        self.terms = [(term["reward"], float(term.get("weight", 1.0))) for term in terms]

    def __call__(self, group: Group) -> np.ndarray:
        return np.sum([weight * reward(group) for reward, weight in self.terms], axis=0)
