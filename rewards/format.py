"""How well an answer keeps to the format, whatever it says."""

from __future__ import annotations

import numpy as np

from rewards.group import Group
from rewards.registry import register


@register("format", per_completion=True)
def answer_format(group: Group) -> np.ndarray:
    """1 for an answer exactly as written by `write_answer`, 0.5 for one that could be mended, 0 for an unusable one."""
    answers = [completion.answer for completion in group.completions]
    return np.array([1.0 if a.clean else 0.5 if a.ok else 0.0 for a in answers])
