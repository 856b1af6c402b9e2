"""Segment-based F1 and error rate, as `sed_eval` defines them.

Time is cut into segments of ``resolution`` seconds; a class is active in every segment that one of its events touches,
from floor(onset / resolution) up to ceil(offset / resolution). True positives, reference and estimate are counted in
segments. Spans of segments are kept as intervals of whole numbers, so that cost depends on the number of events and
not on the length of the clip.

Source of the definition: Mesaros, Heittola, Virtanen, "Metrics for polyphonic sound event detection", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from timepro.events import Event
from timepro.metrics.error_rate import ErrorRate, error_rate
from timepro.metrics.intervals import intersections, merge_intervals
from timepro.metrics.scores import CorpusScores, Counts, class_totals, corpus_scores

Span = tuple[int, int]


@dataclass(frozen=True)
class SegmentCounts:
    """One clip: counts of segments by label, and the segments' substitutions."""

    by_label: dict[str, Counts]
    substituted: int


def segment_counts(
    reference: Iterable[Event], estimated: Iterable[Event], resolution: float = 1.0, use_label: bool = True
) -> SegmentCounts:
    """Count the segments of one clip; resolution in seconds. With ``use_label=False`` all events are one class, ""."""
    spans: dict[str, tuple[list[Span], list[Span]]] = {}
    for side, events in enumerate((reference, estimated)):
        for event in events:
            span = (math.floor(event.onset / resolution), math.ceil(event.offset / resolution))
            spans.setdefault(event.label if use_label else "", ([], []))[side].append(span)
    by_label = {}
    active: list[list[Span]] = [[], [], []]  # of true positives, reference, estimate; every label's
    for label, sides in spans.items():
        refs, ests = (merge_intervals(side) for side in sides)
        layers = (list(intersections(refs, ests)), refs, ests)
        for kept, layer in zip(active, layers, strict=True):
            kept += layer
        tp, n_ref, n_est = (sum(end - start for start, end in layer) for layer in layers)
        by_label[label] = (tp, n_ref, n_est)
    return SegmentCounts(by_label, _substituted(active) if len(by_label) > 1 else 0)


def _substituted(active: Sequence[Iterable[Span]]) -> int:
    """Sum over segments of min(missed classes, falsely active classes).

    active: the spans in which some class is a true positive, in the reference and in the estimate.
    """
    changes: dict[int, list[int]] = {}
    for kind, spans in enumerate(active):
        for start, end in spans:
            changes.setdefault(start, [0, 0, 0])[kind] += 1
            changes.setdefault(end, [0, 0, 0])[kind] -= 1
    total = tp = n_ref = n_est = 0
    for (start, change), (end, _) in pairwise(sorted(changes.items())):
        tp, n_ref, n_est = tp + change[0], n_ref + change[1], n_est + change[2]
        total += (end - start) * (min(n_ref, n_est) - tp)
    return total


def segment_scores(counts: Sequence[SegmentCounts]) -> tuple[CorpusScores, ErrorRate]:
    """F1 and error rate of a corpus from its clips' counts."""
    totals = class_totals(clip.by_label for clip in counts)
    return corpus_scores(totals), error_rate(sum(clip.substituted for clip in counts), totals)
