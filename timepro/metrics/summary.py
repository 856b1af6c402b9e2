"""One table row from a set of answers: what every evaluation reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.metrics.event_based import EventReference, corpus_event_f1
from timepro.metrics.intervals import label_miou


def evaluate_answers(
    references: Sequence[Sequence[Event]], answers: Sequence[ParsedAnswer], **settings: float
) -> dict[str, float | int]:
    """Scores of answers, one a clip. Settings as in `EventReference` (``use_label=False`` for grounding).

    eb_f1_micro, eb_f1_macro, precision, recall: an unparsable answer counts as one without events.
    miou: mean over clips, an unparsable answer counts 0. unparsable, empty: shares of all answers, where empty
    answers are those that say that there are no events. Raises ValueError for no clips or differing lengths.
    """
    _check_lengths(references, answers)
    use_label = bool(settings.get("use_label", True))
    scores = corpus_event_f1(references, [answer.events if answer.ok else [] for answer in answers], **settings)
    ious = [
        label_miou(reference, answer.events, use_label) if answer.ok else 0.0
        for reference, answer in zip(references, answers, strict=True)
    ]
    n = len(answers)
    return {
        "n": n,
        "eb_f1_micro": scores.micro.f1,
        "eb_f1_macro": scores.macro.f1,
        "miou": float(np.mean(ious)),
        "unparsable": sum(not answer.ok for answer in answers) / n,
        "empty": sum(answer.ok and not answer.events for answer in answers) / n,
        "precision": scores.micro.precision,
        "recall": scores.micro.recall,
    }


def clip_counts(
    references: Sequence[Sequence[Event]], answers: Sequence[ParsedAnswer], **settings: float
) -> np.ndarray:
    """Counts (N, 3) of (tp, n_ref, n_est) a clip, the input of the bootstrap. Settings as in `EventReference`."""
    _check_lengths(references, answers)
    return np.array(
        [
            EventReference(reference, **settings).counts(answer.events if answer.ok else [])
            for reference, answer in zip(references, answers, strict=True)
        ]
    )


def _check_lengths(references: Sequence[Sequence[Event]], answers: Sequence[ParsedAnswer]) -> None:
    if len(references) != len(answers) or not len(answers):
        raise ValueError(f"{len(references)} references and {len(answers)} answers: need one a clip, at least one clip")
