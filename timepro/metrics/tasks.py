"""What each task is judged by: its numbers, the one that matters most, and that one clip by clip."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.metrics.event_based import EventReference, corpus_event_f1
from timepro.metrics.intervals import THRESHOLDS, label_miou, recall_at

MAIN_METRIC = {"sed": "eb_f1_micro", "ag": "miou", "dac": "eb_f1_time"}
"""Compared between models, with a paired bootstrap."""

Answers = Sequence[ParsedAnswer]
References = Sequence[Sequence[Event]]


def task_metrics(task: str, references: References, answers: Answers) -> dict[str, float | int]:
    """Scores of answers to questions of one task, one a sample.

    Every task: n, miou, precision and recall of event-based F1, and the shares of unparsable answers and of empty ones
    (those that say that there are no events). An unparsable answer counts as one without events, and has an IoU of 0.

    - sed: eb_f1_micro; eb_f1_macro, the mean over the classes that the references have (a label that the model makes
      up costs precision, not a whole class).
    - ag: r_at_0.3 to r_at_0.9, the share of samples whose IoU is at least that; eb_f1_micro on times alone.
    - dac: eb_f1_time on times alone; eb_f1_label with the captions as labels, case and white space aside; meteor (a
      clip's captions joined) and meteor_matched (of pairs matched in time).

    Raises:
        ValueError: no samples, or differing numbers of references and answers.
    """
    _check_lengths(references, answers)
    labelled = task == "sed"
    estimates = _estimates(answers)
    scores = corpus_event_f1(references, estimates, use_label=labelled)
    ious = _ious(references, answers, labelled)
    n = len(answers)
    numbers: dict[str, float | int] = {"n": n}
    if task == "dac":
        numbers |= _caption_metrics(references, answers)
    else:
        numbers["eb_f1_micro"] = scores.micro.f1
    if task == "sed":
        numbers["eb_f1_macro"] = scores.macro_sed_eval.f1
    numbers["miou"] = float(np.mean(ious))
    if task == "ag":
        numbers |= {f"r_at_{threshold}": share for threshold, share in recall_at(ious, THRESHOLDS).items()}
    return numbers | {
        "unparsable": sum(not answer.ok for answer in answers) / n,
        "empty": sum(answer.ok and not answer.events for answer in answers) / n,
        "precision": scores.micro.precision,
        "recall": scores.micro.recall,
    }


def main_counts(task: str, references: References, answers: Answers) -> np.ndarray:
    """The main metric sample by sample, (N, 3), for the bootstrap: rows whose summed `2 a / (b + c)` is the metric.

    For event-based F1 they are true positives, reference and estimated events; for a mean they are the value, 1, 1.
    """
    _check_lengths(references, answers)
    if task == "ag":
        ious = np.array(_ious(references, answers, labelled=False))
        return np.stack([ious, np.ones_like(ious), np.ones_like(ious)], axis=1)
    pairs = zip(references, _estimates(answers), strict=True)
    return np.array([EventReference(r, use_label=task == "sed").counts(e) for r, e in pairs], dtype=np.float64)


def _estimates(answers: Answers) -> list[list[Event]]:
    return [list(answer.events) if answer.ok else [] for answer in answers]


def _ious(references: References, answers: Answers, labelled: bool) -> list[float]:
    pairs = zip(references, answers, strict=True)
    return [label_miou(reference, answer.events, labelled) if answer.ok else 0.0 for reference, answer in pairs]


def _caption_metrics(references: References, answers: Answers) -> dict[str, float]:
    from timepro.metrics.captions import caption_scores

    scores = caption_scores(references, answers, _meteor())
    return {
        "eb_f1_time": scores.eb_f1_time,
        "eb_f1_label": scores.eb_f1_label,
        "meteor": scores.meteor,
        "meteor_matched": scores.meteor_matched,
    }


@functools.cache
def _meteor() -> Any:
    from timepro.metrics.meteor import Meteor

    return Meteor()


def _check_lengths(references: References, answers: Answers) -> None:
    if len(references) != len(answers) or not len(answers):
        raise ValueError(f"{len(references)} references and {len(answers)} answers: need one a sample, and some")
