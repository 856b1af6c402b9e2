"""Intersection over union of interval sets, for grounding and as the auxiliary reward of detection."""

from __future__ import annotations

from collections.abc import Iterable

from timepro.events import Event

Interval = tuple[float, float]


def set_iou(intervals_a: Iterable[Interval], intervals_b: Iterable[Interval]) -> float:
    """Length of (union of a and union of b in common) / length of (a and b together), in [0, 1].

    Intervals are (onset, offset) in seconds and may overlap within a set. Both sets empty: 1.0, one empty: 0.0.
    Raises ValueError for an interval that ends before it starts.
    """
    union_a, union_b = _merge(intervals_a), _merge(intervals_b)
    if not union_a and not union_b:
        return 1.0
    common, i, j = 0.0, 0, 0
    while i < len(union_a) and j < len(union_b):
        common += max(0.0, min(union_a[i][1], union_b[j][1]) - max(union_a[i][0], union_b[j][0]))
        if union_a[i][1] < union_b[j][1]:
            i += 1
        else:
            j += 1
    together = sum(end - start for start, end in _merge([*union_a, *union_b]))
    return min(1.0, common / together)


def _merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The union as disjoint, sorted intervals; intervals without length vanish."""
    merged: list[Interval] = []
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
