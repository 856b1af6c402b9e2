"""How well the answer's intervals cover the reference's, whatever they are of: the measure of grounding."""

from __future__ import annotations

import numpy as np

from rewards.group import Group
from rewards.registry import register
from timepro.metrics.intervals import label_miou


@register("iou", per_completion=True)
def iou(group: Group) -> np.ndarray:
    """IoU of the union of all intervals, in [0, 1], labels ignored. Both sides empty: 1; unparsable: 0."""
    answers = [completion.answer for completion in group.completions]
    return np.array([label_miou(group.reference, a.events, use_label=False) if a.ok else 0.0 for a in answers])
