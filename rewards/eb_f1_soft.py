"""Event-based F1 with smooth collars: a boundary that is a little off earns a little less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewards.eb_f1 import share_read
from rewards.group import Group
from rewards.registry import register
from timepro.events import Event


@register("eb_f1_soft", per_completion=True)
class SoftEventF1:
    """2 * (summed credit of the best one-to-one assignment) / (reference + estimated events), in [0, 1].

    The credit of a pair with equal labels is the product of its boundaries' credits, each a logistic curve in
    (collar - abs(error)) / width, scaled to 1 at no error. Collars are those of Eb-F1 (the offset's grows with the
    reference's length); all in seconds. As width goes to 0 this becomes Eb-F1. Both sides empty: 1; unparsable: 0.
    count_unread as in Eb-F1.
    """

    def __init__(
        self,
        onset_collar: float = 0.2,
        offset_collar: float = 0.2,
        offset_ratio: float = 0.2,
        width: float = 0.08,
        use_label: bool | None = None,
        count_unread: bool = False,
    ) -> None:
        if not width > 0:
            raise ValueError(f"width must be > 0 seconds, got {width}")
        self.onset_collar, self.offset_collar, self.offset_ratio = onset_collar, offset_collar, offset_ratio
        self.width = width
        self.use_label = use_label
        self.count_unread = count_unread

    def __call__(self, group: Group) -> np.ndarray:
        labelled = group.uses_labels(self.use_label)
        answers = [completion.answer for completion in group.completions]
        scores = np.array([self._score(group.reference, a.events, labelled) if a.ok else 0.0 for a in answers])
        return scores * share_read(group) if self.count_unread else scores

    def _score(self, reference: Sequence[Event], estimated: Sequence[Event], labelled: bool) -> float:
        from scipy.optimize import linear_sum_assignment  # not above: a command that only looks the reward up is quick

        if not reference or not estimated:
            return float(not reference and not estimated)
        total = 0.0
        for label in {event.label for event in reference} if labelled else {None}:
            refs = [event for event in reference if label is None or event.label == label]
            ests = [event for event in estimated if label is None or event.label == label]
            if ests:
                credit = self._credit(refs, ests)
                total += credit[linear_sum_assignment(credit, maximize=True)].sum()
        return 2.0 * total / (len(reference) + len(estimated))

    def _credit(self, refs: Sequence[Event], ests: Sequence[Event]) -> np.ndarray:
        """Credit (n_ref, n_est) of every pair."""
        r = np.array([(event.onset, event.offset) for event in refs])
        e = np.array([(event.onset, event.offset) for event in ests])
        offset_collar = np.maximum(self.offset_collar, self.offset_ratio * (r[:, 1] - r[:, 0]))[:, None]
        onset_error = np.abs(r[:, None, 0] - e[None, :, 0])
        offset_error = np.abs(r[:, None, 1] - e[None, :, 1])
        return self._logistic(onset_error, self.onset_collar) * self._logistic(offset_error, offset_collar)

    def _logistic(self, error: np.ndarray, collar: float | np.ndarray) -> np.ndarray:
        from scipy.special import expit

        return expit((collar - error) / self.width) / expit(collar / self.width)
