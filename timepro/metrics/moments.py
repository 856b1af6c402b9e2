"""Moment retrieval: whether the first window of a ranked answer is right, and average precision over all of them.

Definitions of QVHighlights (Lei, Berg, Bansal, "Detecting moments and highlights in videos via natural language
queries", 2021), which audio moment retrieval uses (arXiv 2409.15672; DCASE 2026, task on audio moment retrieval):

- R1@t: share of queries whose first window has an IoU of at least t with one of the query's right windows.
- mAP@t: for each query the windows are taken in their order; one is right where its IoU with a right window that is
  not taken yet is at least t, the largest IoU first. Average precision is the area under precision, made monotone, over
  recall; mAP@t is its mean over the queries, and mAP the mean over t = 0.5, 0.55, ..., 0.95.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timepro.metrics.intervals import Interval, pair_ious, reaches

THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
MOST = 10
"""Windows of an answer that count."""


def moment_scores(references: Sequence[Sequence[Interval]], answers: Sequence[Sequence[Interval]]) -> dict[str, float]:
    """R1@0.5, R1@0.7, mAP@0.5, mAP@0.75 and mAP, in [0, 1], under `r1_at_0.5` ... `map`.

    Args:
        references: the right windows of each query, (onset, offset) in seconds.
        answers: the windows answered to each, the surest first; 10 at most count. An empty answer is wrong.

    Returns:
        NaN where no query has a right window: those that have none are left out, as moment retrieval asks about what
        is there.

    Raises:
        ValueError: differing numbers of references and answers.
    """
    if len(references) != len(answers):
        raise ValueError(f"{len(references)} queries have right windows and {len(answers)} answers: need one each")
    pairs = [(list(right), list(found)[:MOST]) for right, found in zip(references, answers, strict=True) if right]
    if not pairs:
        return dict.fromkeys(("r1_at_0.5", "r1_at_0.7", "map_at_0.5", "map_at_0.75", "map"), float("nan"))
    tables = [pair_ious(found, right) for right, found in pairs]
    first = np.array([table[0].max() if len(table) else 0.0 for table in tables])
    precision = {t: float(np.mean([_average_precision(table, t) for table in tables])) for t in THRESHOLDS}
    return {
        **{f"r1_at_{t}": float(np.mean(reaches(first, t))) for t in (0.5, 0.7)},
        **{f"map_at_{t}": precision[t] for t in (0.5, 0.75)},
        "map": float(np.mean(list(precision.values()))),
    }


def _average_precision(ious: np.ndarray, threshold: float) -> float:
    """Of one query: (P, R) IoUs, the answered windows in their order."""
    n_right = ious.shape[1]
    free, hits = np.ones(n_right, bool), []
    for row in ious:
        best = int(np.argmax(np.where(free, row, -1.0)))
        hit = bool(free[best] and reaches(row[best], threshold))
        if hit:
            free[best] = False
        hits.append(hit)
    if not any(hits):
        return 0.0
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(monotone[np.array(hits)].sum() / n_right)
