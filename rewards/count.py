"""How close the number of events is, wherever they are."""

from __future__ import annotations

import numpy as np

from rewards.group import Group
from rewards.registry import register


@register("count", per_completion=True)
def count(group: Group) -> np.ndarray:
    """Smaller over larger number of events of answer and reference, in [0, 1]; none on both sides: 1; unparsable: 0."""
    expected = len(group.reference)
    answers = [completion.answer for completion in group.completions]
    return np.array([_ratio(expected, len(answer.events)) if answer.ok else 0.0 for answer in answers])


def _ratio(expected: int, found: int) -> float:
    return min(expected, found) / max(expected, found) if expected or found else 1.0
