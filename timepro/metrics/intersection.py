"""Intersection-based F1: how much of each event is covered, instead of how far its boundaries are off.

An estimated event is relevant when at least ``dtc`` of its length lies in reference events of its class (detection
tolerance criterion); any other is a false positive. A reference event is a true positive when relevant events cover at
least ``gtc`` of its length (ground truth intersection criterion). A relevant event in a reference event that is not
covered enough counts on neither side. The third criterion of the framework, the cross-trigger tolerance (0.3), sorts
false positives by what set them off; it enters PSDS, not F1.

Source of the definition: Bilen et al., "A framework for the robust evaluation of sound event detection", 2020.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from timepro.events import Event
from timepro.metrics.intervals import Interval
from timepro.metrics.scores import Counts

_DECIMALS = 6  # lengths are compared in microseconds, as `sed_scores_eval` does: 0.5 of a length is met by rounding


def intersection_counts(
    reference: Iterable[Event],
    estimated: Iterable[Event],
    dtc: float = 0.5,
    gtc: float = 0.5,
    use_label: bool = True,
) -> dict[str, Counts]:
    """Counts of one clip: label -> (true positives, reference events, true positives + false positives).

    The criteria are defined for events of a class that do not overlap; events that do are joined first, on both
    sides. An estimated event without length, outside of all others, is a false positive. With ``use_label=False`` all
    events are one class, named "".
    """
    by_label: dict[str, tuple[list[Interval], list[Interval]]] = {}
    for side, events in enumerate((reference, estimated)):
        for event in events:
            by_label.setdefault(event.label if use_label else "", ([], []))[side].append((event.onset, event.offset))
    counts = {}
    for label, (refs, ests) in by_label.items():
        joined = _joined(ests)
        tp, n_ref, n_est = _counts(_joined(refs), joined, dtc, gtc)
        counts[label] = (tp, n_ref, n_est + _points_outside(ests, joined))
    return counts


def _points_outside(intervals: Sequence[Interval], joined: Sequence[Interval]) -> int:
    """How many intervals have no length and lie in none of the joined ones."""
    points = [start for start, end in intervals if start == end]
    return sum(not any(start <= point <= end for start, end in joined) for point in points)


def _counts(refs: Sequence[Interval], ests: Sequence[Interval], dtc: float, gtc: float) -> Counts:
    covered = [0.0] * len(refs)
    false = first = 0
    for start, end in ests:
        while first < len(refs) and refs[first][1] <= start:
            first += 1
        shared = []
        for index in range(first, len(refs)):
            if refs[index][0] >= end:
                break
            shared.append((index, min(end, refs[index][1]) - max(start, refs[index][0])))
        if round(sum(length for _, length in shared), _DECIMALS) < round(dtc * (end - start), _DECIMALS):
            false += 1
            continue
        for index, length in shared:
            covered[index] += length
    tp = sum(
        round(length, _DECIMALS) >= round(gtc * (end - start), _DECIMALS)
        for length, (start, end) in zip(covered, refs, strict=True)
    )
    return tp, len(refs), tp + false


def _joined(intervals: list[Interval]) -> list[Interval]:
    """Overlapping intervals joined, sorted; those that only touch stay apart, those without length are left out."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if start == end:
            continue
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
