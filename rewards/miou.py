"""The auxiliary reward of detection and grounding: how well the answer's intervals cover the reference's."""

from __future__ import annotations

import numpy as np

from rewards.group import Group
from rewards.registry import register
from timepro.metrics.intervals import label_miou


@register("miou", per_completion=True)
def miou(group: Group, use_label: bool | None = None) -> np.ndarray:
    """Mean IoU over labels of each completion, in [0, 1]; unparsable: 0. use_label: None asks the task."""
    labelled = group.uses_labels(use_label)
    answers = [completion.answer for completion in group.completions]
    return np.array([label_miou(group.reference, a.events, labelled) if a.ok else 0.0 for a in answers])
