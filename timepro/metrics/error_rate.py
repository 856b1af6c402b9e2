"""Error rate as `sed_eval` defines it: (substitutions + deletions + insertions) / reference. Lower is better, 0 best.

A substitution pairs one missed reference event with one false alarm that is in time but has another label; what is
left over is deleted or inserted. Error rates can exceed 1.

Source of the definition: Mesaros, Heittola, Virtanen, "Metrics for polyphonic sound event detection", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timepro.events import Event
from timepro.metrics.event_based import EventReference
from timepro.metrics.scores import Counts, class_totals


@dataclass(frozen=True)
class ErrorRate:
    """Error rate of a corpus and its three parts; macro: mean over the classes with a reference, where labels are
    given and no substitution can be. All NaN without a reference."""

    error_rate: float
    substitution: float
    deletion: float
    insertion: float
    macro: float


def error_rate(substituted: int, class_counts: Mapping[str, Counts]) -> ErrorRate:
    """The rates from summed counts: class_counts are those of the F1, substituted the number of substitutions.

    Holds for events and, where a missed and a false class are substituted in every segment, for segments too.
    """
    tp, n_ref, n_est = (sum(counts[i] for counts in class_counts.values()) for i in range(3))
    if not n_ref:
        return ErrorRate(*[math.nan] * 5)
    deleted, inserted = n_ref - tp - substituted, n_est - tp - substituted
    by_class = [(r - t + e - t) / r for t, r, e in class_counts.values() if r]
    return ErrorRate(
        (substituted + deleted + inserted) / n_ref,
        substituted / n_ref,
        deleted / n_ref,
        inserted / n_ref,
        math.fsum(by_class) / len(by_class),
    )


def event_error_rate(
    references: Sequence[Iterable[Event]], estimates: Sequence[Sequence[Event]], **settings: Any
) -> ErrorRate:
    """Event-based error rate over clips; settings as in `EventReference`.

    Substitutions are counted as `sed_eval` counts them: after its matching, each missed reference event in turn takes
    the first false alarm that is within the collars.
    """
    substituted = 0
    counts = []
    for events, estimated in zip(references, estimates, strict=True):
        reference = EventReference(events, **settings)
        counts.append(reference.class_counts(estimated))
        pairs = reference.pairs(estimated)
        paired = set(pairs.values())
        missed = [event for position, event in enumerate(reference.events) if position not in pairs]
        false = [event for index, event in enumerate(estimated) if index not in paired]
        if missed and false:
            substituted += _substitutions(EventReference(missed, **{**settings, "use_label": False}), false)
    return error_rate(substituted, class_totals(counts))


def _substitutions(missed: EventReference, false: Collection[Event]) -> int:
    in_time: dict[int, list[int]] = {}  # missed event -> false alarms within its collars, in their order
    for index, event in enumerate(false):
        for position in missed.candidates(event):
            in_time.setdefault(position, []).append(index)
    taken: set[int] = set()
    for position in sorted(in_time):
        free = next((index for index in in_time[position] if index not in taken), None)
        if free is not None:
            taken.add(free)
    return len(taken)
