"""F1 of the onsets alone: a first step for a model that does not find the offsets yet."""

from __future__ import annotations

import math

import numpy as np

from rewards.group import Group
from rewards.registry import register
from timepro.metrics.event_based import event_f1


@register("onset_f1", per_completion=True)
class OnsetF1:
    """Eb-F1 of each completion with offsets left out of the matching, in [0, 1]; unparsable: 0.

    onset_collar and tolerance in seconds, as in `eb_f1`. use_label: None asks the task (detection: yes, others: no).
    """

    def __init__(self, onset_collar: float = 0.2, tolerance: float = 1e-6, use_label: bool | None = None) -> None:
        for key, value in (("onset_collar", onset_collar), ("tolerance", tolerance)):
            if not value >= 0:
                raise ValueError(f"{key} must be >= 0 seconds, got {value}")
        self.settings = {"onset_collar": onset_collar, "tolerance": tolerance, "offset_collar": math.inf}
        self.use_label = use_label

    def __call__(self, group: Group) -> np.ndarray:
        settings = {**self.settings, "use_label": group.uses_labels(self.use_label)}
        answers = [completion.answer for completion in group.completions]
        return np.array([event_f1(group.reference, a.events, **settings) if a.ok else 0.0 for a in answers])
