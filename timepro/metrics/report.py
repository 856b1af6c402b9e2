"""Every metric of a set of answers as one nested mapping: what `timepro evaluate` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.metrics.bootstrap import macro_f1, micro_f1, percentile_interval, resampled_sums
from timepro.metrics.error_rate import event_error_rate
from timepro.metrics.event_based import match_counts
from timepro.metrics.intersection import intersection_counts
from timepro.metrics.intervals import label_miou, recall_at
from timepro.metrics.scores import CorpusScores, Counts, class_totals, corpus_scores
from timepro.metrics.segment_based import segment_counts, segment_scores

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SEGMENTS = {"segment_based_1s": 1.0, "segment_based_100ms": 0.1}
_AVERAGES = {
    "event_based": ("micro", "macro", "macro_sed_eval"),
    "segment_based_1s": ("micro", "macro", "macro_sed_eval"),
    "segment_based_100ms": ("micro", "macro", "macro_sed_eval"),
    "intersection": ("micro", "macro"),
}


def event_report(
    references: Sequence[Sequence[Event]],
    answers: Sequence[ParsedAnswer],
    n_resamples: int = 2000,
    seed: int = 0,
    **settings: float,
) -> dict[str, Any]:
    """Score answers, one a clip; settings as in `EventReference`.

    n; event_based, segment_based_1s, segment_based_100ms, intersection: averages (``micro``, ``macro``,
    ``macro_sed_eval``) of ``f1``, ``precision``, ``recall`` and, with n_resamples > 0, ``f1_interval``, the 95 %
    bootstrap interval over clips; error_rate by kind; miou, miou_interval and r_at; unparsable and empty, shares of all
    answers; class_wise, label -> kind -> scores. An unparsable answer counts as one without events, and 0 in miou.
    Numbers that are not defined (no reference at all) are NaN. Raises ValueError for no clips or differing lengths.
    """
    if len(references) != len(answers) or not len(answers):
        raise ValueError(f"{len(references)} references and {len(answers)} answers: need one a clip, at least one clip")
    use_label = bool(settings.get("use_label", True))
    estimates = [answer.events if answer.ok else [] for answer in answers]
    clips = list(zip(references, estimates, strict=True))
    segments = {
        name: [segment_counts(reference, estimated, length, use_label) for reference, estimated in clips]
        for name, length in SEGMENTS.items()
    }
    counts: dict[str, list[Mapping[str, Counts]]] = {
        "event_based": [match_counts(reference, estimated, **settings) for reference, estimated in clips],
        **{name: [clip.by_label for clip in rows] for name, rows in segments.items()},
        "intersection": [intersection_counts(r, e, use_label=use_label) for r, e in clips],
    }
    scores = {kind: corpus_scores(class_totals(rows)) for kind, rows in counts.items()}
    ious = [
        label_miou(reference, answer.events, use_label) if answer.ok else 0.0
        for reference, answer in zip(references, answers, strict=True)
    ]
    n = len(answers)
    report: dict[str, Any] = {"n": n}
    report |= {kind: {name: asdict(getattr(scores[kind], name)) for name in _AVERAGES[kind]} for kind in scores}
    report["error_rate"] = {"event_based": asdict(event_error_rate(references, estimates, **settings))} | {
        name: asdict(segment_scores(rows)[1]) for name, rows in segments.items()
    }
    report["miou"] = float(np.mean(ious))
    report["r_at"] = {str(threshold): share for threshold, share in recall_at(ious).items()}
    report["unparsable"] = sum(not answer.ok for answer in answers) / n
    report["empty"] = sum(answer.ok and not answer.events for answer in answers) / n
    report["class_wise"] = _class_wise(scores)
    if n_resamples:
        _add_intervals(report, counts, ious, n_resamples, seed)
    return report


def _class_wise(scores: Mapping[str, CorpusScores]) -> dict[str, dict[str, Any]]:
    labels = scores["event_based"].class_wise
    return {
        label: {kind: asdict(row.class_wise[label]) for kind, row in scores.items() if label in row.class_wise}
        for label in labels
    }


def _add_intervals(
    report: dict[str, Any],
    counts: Mapping[str, Sequence[Mapping[str, Counts]]],
    ious: Sequence[float],
    n_resamples: int,
    seed: int,
) -> None:
    """Add the bootstrap intervals; every metric sees the same resampled clips."""
    from scipy.sparse import csr_array, hstack  # not above: it takes longer than all else that a dry run imports

    labels = {label: index for index, label in enumerate(report["class_wise"])}
    tables = [_table(rows, labels) for rows in counts.values()]
    sums = resampled_sums(hstack([*tables, csr_array(np.array(ious)[:, None])], format="csr"), n_resamples, seed)
    width = 3 * len(labels)
    for index, kind in enumerate(counts):
        by_class = sums[:, index * width : (index + 1) * width].reshape(len(sums), len(labels), 3)
        values = {
            "micro": micro_f1(by_class.sum(axis=1)),
            "macro": macro_f1(by_class),
            "macro_sed_eval": macro_f1(by_class, reference_only=True),
        }
        for name in _AVERAGES[kind]:
            report[kind][name]["f1_interval"] = percentile_interval(values[name])
    report["miou_interval"] = percentile_interval(sums[:, -1] / len(ious))


def _table(rows: Sequence[Mapping[str, Counts]], labels: Mapping[str, int]) -> csr_array:
    """Counts (N, 3 L) of all clips; sparse, since a clip holds few of many classes."""
    from scipy.sparse import csr_array

    clip: list[int] = []
    column: list[int] = []
    value: list[float] = []
    for index, row in enumerate(rows):
        for label, counts in row.items():
            clip += [index] * 3
            column += range(3 * labels[label], 3 * labels[label] + 3)
            value += counts
    return csr_array((np.array(value, dtype=np.float64), (clip, column)), shape=(len(rows), 3 * len(labels)))
