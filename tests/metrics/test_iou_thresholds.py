"""An IoU at a threshold reaches it, wherever on the grid of times: against fractions, in each metric that has one."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from timepro.events import Event, ParsedAnswer
from timepro.metrics import recall_at, set_iou
from timepro.metrics.intervals import Interval
from timepro.metrics.meaning import similarity_at_iou
from timepro.metrics.moments import moment_scores


def recall(right: Interval, found: Interval, threshold: float) -> float:
    return recall_at([set_iou([right], [found])], [threshold])[threshold]


def first_moment(right: Interval, found: Interval, threshold: float) -> float:
    return moment_scores([[right]], [[found]])[f"r1_at_{threshold}"]


def average_precision(right: Interval, found: Interval, threshold: float) -> float:
    return moment_scores([[right]], [[found]])[f"map_at_{threshold}"]


def caption(right: Interval, found: Interval, threshold: float) -> float:
    answer = ParsedAnswer([Event(*found, "rain")], True)
    scores = similarity_at_iou([[Event(*right, "rain")]], [answer], lambda texts: np.ones((len(texts), 2)))
    return round(scores[f"similarity_at_{threshold}"], 9)


@pytest.mark.parametrize(
    ("metric", "threshold"),
    [
        *((recall, threshold) for threshold in (0.3, 0.5, 0.7, 0.9)),
        *((first_moment, threshold) for threshold in (0.5, 0.7)),
        *((average_precision, threshold) for threshold in (0.5, 0.75)),
        *((caption, threshold) for threshold in (0.3, 0.5, 0.7)),
    ],
)
def test_a_window_at_the_threshold_counts(metric: Callable[..., float], threshold: float) -> None:
    limit, at_it = Fraction(str(threshold)), 0
    for length in range(1, 21):
        nearest = int(limit * length)  # the longest part that does not exceed the threshold, in steps of the grid
        at_it += Fraction(nearest, length) == limit
        for start in range(12):
            right = (start / 10, (start + length) / 10)
            for part in range(max(1, nearest - 1), min(length, nearest + 1) + 1):
                found = ((start + length - part) / 10, (start + length) / 10)
                assert metric(right, found, threshold) == (Fraction(part, length) >= limit), (right, found)
    assert at_it >= 2
