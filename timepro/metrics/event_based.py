"""Event-based F1 (Eb-F1), as DCASE and `sed_eval` (``event_matching_type='optimal'``) define it.

An estimated event matches a reference event when the labels are equal, the onsets differ by at most ``onset_collar``
and the offsets by at most ``max(offset_collar, offset_ratio * reference length)``. True positives are the edges of a
maximum bipartite matching. Differences are compared in double precision without a tolerance, as `sed_eval` does it:
on a 40 ms grid about half of the pairs exactly 0.2 s apart then fail by rounding, so callers that need "exactly at the
collar" to count (the rewards) pass a small ``tolerance`` in seconds.

Source of the definition: Mesaros, Heittola, Virtanen, "Metrics for polyphonic sound event detection", 2016.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from timepro.events import Event

Counts = tuple[int, int, int]  # (true positives, reference events, estimated events)


@dataclass(frozen=True)
class ClassScores:
    """Scores and counts of one label over a corpus."""

    f1: float
    precision: float
    recall: float
    tp: int
    n_ref: int
    n_est: int


@dataclass(frozen=True)
class EventScores:
    """Eb-F1 of a corpus.

    f1, precision, recall: micro, from the summed counts.
    macro: mean F1 over every class that is in a reference or an estimate; a class only hallucinated counts 0.
    macro_sed_eval: mean F1 over classes with a reference, as `sed_eval` with ``zero_score``; NaN without any.
    """

    f1: float
    precision: float
    recall: float
    macro: float
    macro_sed_eval: float
    class_wise: dict[str, ClassScores]
    tp: int
    n_ref: int
    n_est: int


def f1_from_counts(tp: int, n_ref: int, n_est: int) -> float:
    """F1 = 2 TP / (reference + estimated); 1.0 where there is nothing to find and nothing was found."""
    return 2.0 * tp / (n_ref + n_est) if n_ref + n_est else 1.0


def match_counts(
    reference: Iterable[Event],
    estimated: Iterable[Event],
    onset_collar: float = 0.2,
    offset_collar: float = 0.2,
    offset_ratio: float = 0.2,
    tolerance: float = 0.0,
    use_label: bool = True,
) -> dict[str, Counts]:
    """Counts of one clip: label -> (true positives, reference events, estimated events).

    Collars and tolerance in seconds. With ``use_label=False`` all events are one class, named "".
    """
    by_label: dict[str, tuple[list[Event], list[Event]]] = {}
    for side, events in enumerate((reference, estimated)):
        for event in events:
            by_label.setdefault(event.label if use_label else "", ([], []))[side].append(event)
    counts = {}
    for label, (refs, ests) in by_label.items():
        limits = (onset_collar, offset_collar, offset_ratio, tolerance)
        edges = [[j for j, est in enumerate(ests) if _matches(ref, est, *limits)] for ref in refs]
        counts[label] = (_maximum_matching(edges, len(ests)), len(refs), len(ests))
    return counts


def _matches(
    ref: Event, est: Event, onset_collar: float, offset_collar: float, offset_ratio: float, tolerance: float
) -> bool:
    offset_limit = max(offset_collar, offset_ratio * (ref.offset - ref.onset))
    return (
        math.fabs(ref.onset - est.onset) <= onset_collar + tolerance
        and math.fabs(ref.offset - est.offset) <= offset_limit + tolerance
    )


def _maximum_matching(edges: Sequence[Sequence[int]], n_right: int) -> int:
    """Size of a maximum matching; ``edges[i]`` are the right nodes that left node i may take.

    Breadth-first augmenting paths: no recursion, so that an answer of thousands of events cannot exhaust the stack.
    """
    owner = [-1] * n_right  # the left node a right node is matched to
    taken = [-1] * len(edges)  # the right node a left node is matched to
    size = 0
    for root in range(len(edges)):
        came_from: dict[int, int] = {}  # right node -> left node it was reached from
        queue = deque([root])
        free = -1
        while queue and free < 0:
            left = queue.popleft()
            for right in edges[left]:
                if right in came_from:
                    continue
                came_from[right] = left
                if owner[right] < 0:
                    free = right
                    break
                queue.append(owner[right])
        while free >= 0:  # flip the path back to the root
            left = came_from[free]
            owner[free], taken[left], free = left, free, taken[left]
        size += taken[root] >= 0
    return size


def event_f1(reference: Iterable[Event], estimated: Iterable[Event], **settings: float) -> float:
    """Micro Eb-F1 of one clip. Both sides empty: 1.0, one side empty: 0.0. Settings as in `match_counts`."""
    counts = match_counts(reference, estimated, **settings)
    return f1_from_counts(*_summed(counts.values()))


def _summed(counts: Iterable[Counts]) -> Counts:
    tp = n_ref = n_est = 0
    for row in counts:
        tp, n_ref, n_est = tp + row[0], n_ref + row[1], n_est + row[2]
    return tp, n_ref, n_est


def corpus_event_f1(
    references: Sequence[Iterable[Event]], estimates: Sequence[Iterable[Event]], **settings: float
) -> EventScores:
    """Eb-F1 over clips; ``references[i]`` and ``estimates[i]`` belong to the same clip. Settings as in `match_counts`.

    Raises ValueError where the two differ in length. A corpus without any event on either side scores 1.0.
    """
    if len(references) != len(estimates):
        raise ValueError(f"{len(references)} references and {len(estimates)} estimates: need one a clip")
    per_label: dict[str, list[Counts]] = {}
    for reference, estimated in zip(references, estimates, strict=True):
        for label, counts in match_counts(reference, estimated, **settings).items():
            per_label.setdefault(label, []).append(counts)
    totals = {label: _summed(rows) for label, rows in sorted(per_label.items())}
    class_wise = {label: ClassScores(*_scores(*counts), *counts) for label, counts in totals.items()}
    tp, n_ref, n_est = _summed(totals.values())
    return EventScores(
        *_scores(tp, n_ref, n_est),
        macro=_mean([row.f1 for row in class_wise.values()], empty=1.0),
        macro_sed_eval=_mean([row.f1 for row in class_wise.values() if row.n_ref], empty=math.nan),
        class_wise=class_wise,
        tp=tp,
        n_ref=n_ref,
        n_est=n_est,
    )


def _scores(tp: int, n_ref: int, n_est: int) -> tuple[float, float, float]:
    """(f1, precision, recall); an empty denominator gives 0, unless both sides are empty."""
    nothing = 0.0 if n_ref + n_est else 1.0
    return f1_from_counts(tp, n_ref, n_est), tp / n_est if n_est else nothing, tp / n_ref if n_ref else nothing


def _mean(values: Sequence[float], empty: float) -> float:
    return math.fsum(values) / len(values) if values else empty
