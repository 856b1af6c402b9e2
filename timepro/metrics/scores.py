"""F1, precision and recall of a corpus from counts by class, with every average that is reported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Counts = tuple[int, int, int]  # (true positives, reference, estimated)


@dataclass(frozen=True)
class Scores:
    """One average: F1, precision and recall, each in [0, 1]."""

    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class ClassScores(Scores):
    """Scores and counts of one label over a corpus."""

    tp: int
    n_ref: int
    n_est: int


@dataclass(frozen=True)
class CorpusScores:
    """Scores of a corpus.

    micro: from the summed counts.
    macro: mean over every class that is in a reference or an estimate; a class only hallucinated counts 0.
    macro_sed_eval: the mean that `sed_eval` gives with ``zero_score``: a class without a reference is left out of F1
    and recall, but not of precision. NaN without any reference.
    """

    micro: Scores
    macro: Scores
    macro_sed_eval: Scores
    class_wise: dict[str, ClassScores]
    tp: int
    n_ref: int
    n_est: int


def f1_from_counts(tp: int, n_ref: int, n_est: int) -> float:
    """F1 = 2 TP / (reference + estimated); 1.0 where there is nothing to find and nothing was found."""
    return 2.0 * tp / (n_ref + n_est) if n_ref + n_est else 1.0


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """Element-wise sum."""
    tp = n_ref = n_est = 0
    for row in counts:
        tp, n_ref, n_est = tp + row[0], n_ref + row[1], n_est + row[2]
    return tp, n_ref, n_est


def class_totals(clips: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    """Counts by label, summed over clips; labels sorted."""
    totals: dict[str, Counts] = {}
    for clip in clips:
        for label, (tp, n_ref, n_est) in clip.items():
            a, b, c = totals.get(label, (0, 0, 0))
            totals[label] = (a + tp, b + n_ref, c + n_est)
    return {label: totals[label] for label in sorted(totals)}


def corpus_scores(totals: Mapping[str, Counts]) -> CorpusScores:
    """Every average from the counts by label. Without any label (nothing to find, nothing found) all are 1.0."""
    class_wise = {label: ClassScores(*_rates(*counts), *counts) for label, counts in totals.items()}
    rows = list(class_wise.values())
    with_reference = [row for row in rows if row.n_ref]
    summed = sum_counts(totals.values())
    return CorpusScores(
        micro=Scores(*_rates(*summed)),
        macro=Scores(*(_mean([getattr(row, name) for row in rows], empty=1.0) for name in _NAMES)),
        macro_sed_eval=Scores(
            *(
                _mean([getattr(row, name) for row in (rows if name == "precision" else with_reference)], empty=math.nan)
                for name in _NAMES
            )
        ),
        class_wise=class_wise,
        tp=summed[0],
        n_ref=summed[1],
        n_est=summed[2],
    )


_NAMES = ("f1", "precision", "recall")


def _rates(tp: int, n_ref: int, n_est: int) -> tuple[float, float, float]:
    """(f1, precision, recall); an empty denominator gives 0, unless both sides are empty."""
    nothing = 0.0 if n_ref + n_est else 1.0
    return f1_from_counts(tp, n_ref, n_est), tp / n_est if n_est else nothing, tp / n_ref if n_ref else nothing


def _mean(values: Sequence[float], empty: float) -> float:
    return math.fsum(values) / len(values) if values else empty
