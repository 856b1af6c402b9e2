"""Polyphonic sound detection score from several sampled answers a clip, or of events with a confidence.

A list of events is one operating point, and PSDS is an area under many. The share of a clip's answers in which a class
is active gives the missing ones: thresholds between 0 and 1 on that share. Frames are cut where any answer changes, so
that no time is rounded. Events with a confidence each are such scores, too. Both go through `sed_scores_eval`.

Sources: Bilen et al., "A framework for the robust evaluation of sound event detection", 2020; Ebbers et al.,
"Threshold independent evaluation of sound event detection scores", 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from timepro.events import Event
from timepro.hints import install
from timepro.metrics.calibration import Sure
from timepro.metrics.intervals import merge_intervals

if TYPE_CHECKING:
    import pandas

SCENARIOS: Mapping[str, Mapping[str, float]] = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_st": 1.0, "max_efpr": 100.0},
    "psds2": {
        "dtc_threshold": 0.1,
        "gtc_threshold": 0.1,
        "cttc_threshold": 0.3,
        "alpha_ct": 0.5,
        "alpha_st": 1.0,
        "max_efpr": 100.0,
    },
}
"""DCASE's two: 1 asks for exact times, 2 for the right class. max_efpr in effective false positives an hour."""


def activity(
    samples: Sequence[Sequence[Event]], labels: Sequence[str], duration: float
) -> tuple[np.ndarray, np.ndarray]:
    """Frames of one clip and each class's score in them.

    samples: the n answers. Returns boundaries (F + 1,) in seconds, from 0 to the end of the clip or, where an answer
    goes beyond it, of the last event, and shares (F, L) of the answers in which a class of ``labels`` is active.
    Raises ValueError for a clip without answers.
    """
    if not samples:
        raise ValueError("PSDS needs at least one sampled answer a clip; this clip has none")
    times = [time for answer in samples for event in answer for time in (event.onset, event.offset)]
    boundaries = np.unique(np.array([0.0, duration, *times]))
    column = {label: index for index, label in enumerate(labels)}
    steps = np.zeros((len(boundaries), len(labels)), dtype=np.int64)
    for answer in samples:
        by_label: dict[str, list[tuple[float, float]]] = {}
        for event in answer:
            if event.label in column:
                by_label.setdefault(event.label, []).append((event.onset, event.offset))
        for label, intervals in by_label.items():
            edges = np.searchsorted(boundaries, np.array(merge_intervals(intervals)).reshape(-1, 2))
            np.add.at(steps[:, column[label]], edges[:, 0], 1)
            np.add.at(steps[:, column[label]], edges[:, 1], -1)
    return boundaries, np.cumsum(steps[:-1], axis=0) / len(samples)


def psds_heading(key: str) -> str:
    """What a scenario's score is called in a table: "PSDS 1", or "PSDS 1 (events)" of events with a confidence."""
    scenario, _, form = key.removeprefix("psds").partition("_")
    return f"PSDS {scenario}" + (f" ({form})" if form else "")


def box_scores(boxes: Sequence[Sure], labels: Sequence[str], duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames of one clip and each class's score in them: over an event's whole length its confidence.

    Where events of a class overlap, the surer one counts. Returns boundaries (F + 1,) and scores (F, L) as `activity`.
    Raises ValueError for an event without a confidence in [0, 1].
    """
    times = [time for box in boxes for time in (box.event.onset, box.event.offset)]
    boundaries = np.unique(np.array([0.0, duration, *times]))
    scores = np.zeros((len(boundaries) - 1, len(labels)))
    column = {label: index for index, label in enumerate(labels)}
    for box in boxes:
        if box.confidence is None or not 0 <= box.confidence <= 1:
            raise ValueError(f"the event {box.event} has the confidence {box.confidence}; PSDS needs one from 0 to 1")
        if box.label in column:
            first, last = np.searchsorted(boundaries, (box.event.onset, box.event.offset))
            part = scores[first:last, column[box.label]]
            np.maximum(part, box.confidence, out=part)
    return boundaries, scores


def psds_of_events(
    references: Sequence[Sequence[Event]], detections: Sequence[Sequence[Sure]], durations: Sequence[float]
) -> dict[str, float]:
    """PSDS of events that have one confidence each: sound event bounding boxes (class, onset, offset, score).

    An event is reported as a whole or not at all, at every threshold with the same times, where the frame-wise form of
    `psds` changes an event's times with the threshold. Of n sampled answers, `timepro.inference.confidence.by_share`
    makes such events: their confidence is the share of answers with a matching event.
    Source: Ebbers, Germain, Wichern, Le Roux, "Sound event bounding boxes", 2024. Args and Raises as `psds`.
    """
    library, scoring = require_library()
    return _psds(library, scoring, references, detections, durations, box_scores)


def psds(
    references: Sequence[Sequence[Event]],
    samples: Sequence[Sequence[Sequence[Event]]],
    durations: Sequence[float],
) -> dict[str, float]:
    """PSDS in [0, 1] of both `SCENARIOS`; ``samples[i]`` are the n answers to the clip of ``references[i]``.

    durations in seconds. Reference events of a class that overlap or touch are joined: `sed_scores_eval` takes no
    others. A label without any reference event has no true positive ratio and is left out, as `psds_eval` does.
    A threshold below 0 would declare every class active everywhere, which no answer said: that operating point of
    `sed_scores_eval` is left out too.
    Raises ValueError without `sed_scores_eval`, for no clips, differing lengths, or no reference events at all.
    """
    library, scoring = require_library()
    return _psds(library, scoring, references, samples, durations, activity)


def _psds(
    library: Any,
    scoring: Any,
    references: Sequence[Sequence[Event]],
    found: Sequence[Any],
    durations: Sequence[float],
    score: Callable[[Any, Sequence[str], float], tuple[np.ndarray, np.ndarray]],
) -> dict[str, float]:
    """PSDS of whatever ``score`` turns into boundaries and class scores, clip by clip."""
    if not len(references) == len(found) == len(durations):
        raise ValueError(
            f"PSDS: {len(references)} references, {len(found)} lists of answers, {len(durations)} durations: "
            "need one of each a clip"
        )
    labels = sorted({event.label for reference in references for event in reference})
    if not labels:
        raise ValueError("PSDS is not defined for a test set without any reference event")
    # Clips and classes go by number: the library gives some characters of a name a meaning of their own.
    truth, scores = {}, {}
    for index, (reference, own, duration) in enumerate(zip(references, found, durations, strict=True)):
        truth[str(index)] = _ground_truth(reference, labels)
        boundaries, shares = score(own, labels, duration)
        scores[str(index)] = scoring.create_score_dataframe(shares, boundaries, [str(i) for i in range(len(labels))])
    lengths = {str(index): float(duration) for index, duration in enumerate(durations)}
    return {name: _scenario(library, scores, truth, lengths, dict(SCENARIOS[name]), len(labels)) for name in SCENARIOS}


def _ground_truth(reference: Sequence[Event], labels: Sequence[str]) -> list[tuple[float, float, str]]:
    return [
        (onset, offset, str(index))
        for index, label in enumerate(labels)
        for onset, offset in merge_intervals((e.onset, e.offset) for e in reference if e.label == label)
    ]


def _scenario(
    library: Any,
    scores: Mapping[str, pandas.DataFrame],
    truth: Mapping[str, list[tuple[float, float, str]]],
    lengths: Mapping[str, float],
    settings: dict[str, float],
    n_labels: int,
) -> float:
    if n_labels == 1:  # nothing to be cross-triggered by
        settings = {key: value for key, value in settings.items() if key not in ("cttc_threshold", "alpha_ct")}
    criteria = {f"{name}_threshold": settings.get(f"{name}_threshold") for name in ("dtc", "gtc", "cttc")}
    deltas = library.intermediate_statistics_deltas(scores, truth, **criteria)
    kept = {
        clip: {label: _without_zero(*entry) for label, entry in classes.items()} for clip, classes in deltas.items()
    }
    value, *_ = library.psds(None, truth, lengths, deltas=kept, **settings)
    return float(value)


def _without_zero(points: np.ndarray, deltas: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """What changes at each score, with the change at score 0 undone (removed, a silent class would have no curve)."""
    keep = points > 0
    return points, {
        key: {other: values * keep for other, values in delta.items()} if isinstance(delta, Mapping) else delta * keep
        for key, delta in deltas.items()
    }


def require_library() -> tuple[Any, Any]:
    """`sed_scores_eval`'s modules. Raises ValueError, saying what to install, where PSDS cannot be computed."""
    how = f"install it with: {install('sed_scores_eval==0.0.4', 'pandas<3')}"
    try:
        import pandas
        from sed_scores_eval import intersection_based
        from sed_scores_eval.base_modules import scores
    except ImportError as error:
        raise ValueError(
            f"PSDS needs the package sed_scores_eval, which cannot be imported ({error}); {how}"
        ) from error
    if int(pandas.__version__.split(".")[0]) >= 3:
        raise ValueError(f"PSDS: sed_scores_eval does not work with pandas {pandas.__version__}; {how}")
    return intersection_based, scores
