"""Intersection over union of interval sets, for grounding and as the auxiliary reward of detection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from timepro.events import Event

Interval = tuple[float, float]
Number = TypeVar("Number", int, float)
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
_ROUNDING = 1e-9  # far above what double precision loses, far below a step of any grid of times


def set_iou(intervals_a: Iterable[Interval], intervals_b: Iterable[Interval]) -> float:
    """Length of (union of a and union of b in common) / length of (a and b together), in [0, 1].

    Intervals are (onset, offset) in seconds and may overlap within a set. Both sets empty: 1.0, one empty: 0.0. An
    interval without length covers nothing, but a set that holds one is not empty.
    Raises ValueError for an interval that ends before it starts.
    """
    a, b = list(intervals_a), list(intervals_b)
    union_a, union_b = merge_intervals(a), merge_intervals(b)
    if not union_a and not union_b:
        return 0.0 if a or b else 1.0
    common = sum(end - start for start, end in intersections(union_a, union_b))
    together = sum(end - start for start, end in merge_intervals([*union_a, *union_b]))
    return min(1.0, common / together)


def pair_ious(intervals_a: Sequence[Interval], intervals_b: Sequence[Interval]) -> np.ndarray:
    """IoU of each interval of a with each of b, (A, B), in [0, 1]; two intervals without length have 0."""
    a, b = np.array(intervals_a, float).reshape(-1, 1, 2), np.array(intervals_b, float).reshape(1, -1, 2)
    common = np.maximum(np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]), 0.0)
    together = np.maximum(a[..., 1], b[..., 1]) - np.minimum(a[..., 0], b[..., 0])
    return np.divide(common, together, out=np.zeros_like(common), where=together > 0)


def merge_intervals(intervals: Iterable[tuple[Number, Number]]) -> list[tuple[Number, Number]]:
    """The union as disjoint, sorted intervals; touching ones are joined, those without length vanish.

    Raises ValueError for an interval that ends before it starts.
    """
    merged: list[tuple[Number, Number]] = []
    for start, end in sorted(intervals):
        if not start <= end:
            raise ValueError(f"interval ({start}, {end}) ends before it starts or is not a number")
        if start == end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def intersections(
    union_a: Sequence[tuple[Number, Number]], union_b: Sequence[tuple[Number, Number]]
) -> Iterator[tuple[Number, Number]]:
    """What two lists of disjoint, sorted intervals have in common, as such a list."""
    i = j = 0
    while i < len(union_a) and j < len(union_b):
        start, end = max(union_a[i][0], union_b[j][0]), min(union_a[i][1], union_b[j][1])
        if start < end:
            yield start, end
        if union_a[i][1] < union_b[j][1]:
            i += 1
        else:
            j += 1


def label_miou(reference: Iterable[Event], estimated: Iterable[Event], use_label: bool = True) -> float:
    """Mean over the labels in reference or estimate of that label's `set_iou`; both sides empty: 1.0.

    With ``use_label=False`` all events count as one label, which is the IoU of grounding.
    """
    by_label: dict[str, tuple[list[Interval], list[Interval]]] = {}
    for side, events in enumerate((reference, estimated)):
        for event in events:
            by_label.setdefault(event.label if use_label else "", ([], []))[side].append((event.onset, event.offset))
    if not by_label:
        return 1.0
    return sum(set_iou(refs, ests) for refs, ests in by_label.values()) / len(by_label)


def recall_at(ious: Sequence[float], thresholds: Sequence[float] = THRESHOLDS) -> dict[float, float]:
    """R@threshold: the share of samples whose IoU is at least the threshold. Raises ValueError for no samples."""
    if not len(ious):
        raise ValueError("recall_at: there are no IoUs to count; give at least one sample")
    return {threshold: float(np.mean(reaches(np.array(ious), threshold))) for threshold in thresholds}


def reaches(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Which IoUs are at least the threshold, an IoU at it included whatever rounding made of it; boolean, as ``ious``.

    Times lie on a grid, so IoUs of exactly 0.5 are common: 0.4-0.6 in 0.4-0.8 s has 0.4999999999999999 in doubles.
    """
    return ious >= threshold - _ROUNDING
