"""Answers to one task's questions beside their references: the numbers that tasks put together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from timepro.events import Event
from timepro.metrics.event_based import EventReference, corpus_event_f1
from timepro.metrics.intervals import label_miou
from timepro.metrics.scores import CorpusScores
from timepro.tasks.types import Answers, Metrics, References


class ScoredEvents:
    """N answers and their references, one a sample. An unparsable answer counts as one without events.

    Args:
        use_label: whether labels must match; else times alone count.

    Raises:
        ValueError: no samples, or differing numbers of references and answers.
    """

    def __init__(self, references: References, answers: Answers, use_label: bool) -> None:
        if len(references) != len(answers) or not len(answers):
            raise ValueError(f"{len(references)} references and {len(answers)} answers: need one a sample, and some")
        self.references, self.answers, self.use_label = references, answers, use_label

    @property
    def estimates(self) -> list[list[Event]]:
        """The events of each answer."""
        return [list(answer.events) if answer.ok else [] for answer in self.answers]

    @cached_property
    def f1(self) -> CorpusScores:
        """Event-based F1 over all samples."""
        return corpus_event_f1(self.references, self.estimates, use_label=self.use_label)

    @cached_property
    def ious(self) -> list[float]:
        """IoU of each answer, (N,), in [0, 1]; unparsable: 0."""
        pairs = zip(self.references, self.answers, strict=True)
        return [label_miou(reference, a.events, self.use_label) if a.ok else 0.0 for reference, a in pairs]

    def event_metrics(self) -> Metrics:
        """What a task without metrics of its own reports.

        eb_f1_micro; with labels, eb_f1_macro: the mean over the classes that the references have (a label that the
        model makes up costs precision, not a whole class).
        """
        own: dict[str, float | int] = {"eb_f1_micro": self.f1.micro.f1}
        if self.use_label:
            own["eb_f1_macro"] = self.f1.macro_sed_eval.f1
        return self.report(own)

    def report(self, first: Mapping[str, float | int], after_iou: Mapping[str, float | int] | None = None) -> Metrics:
        """A task's own metrics with those that every task has.

        Those are n, miou, precision and recall of event-based F1, and the shares of unparsable answers, of mended ones
        (read, but not as written: `ParsedAnswer.repairs`) and of empty ones (those that say that there are no events).

        Args:
            first: metrics to stand before miou.
            after_iou: metrics to stand behind it.
        """
        n = len(self.answers)
        return {
            "n": n,
            **first,
            "miou": float(np.mean(self.ious)),
            **(after_iou or {}),
            "unparsable": sum(not answer.ok for answer in self.answers) / n,
            "mended": sum(answer.mended for answer in self.answers) / n,
            "empty": sum(answer.ok and not answer.events for answer in self.answers) / n,
            "precision": self.f1.micro.precision,
            "recall": self.f1.micro.recall,
        }

    def event_counts(self) -> np.ndarray:
        """(N, 3) true positives, reference and estimated events of each sample."""
        pairs = zip(self.references, self.estimates, strict=True)
        return np.array([EventReference(r, use_label=self.use_label).counts(e) for r, e in pairs], dtype=np.float64)

    def iou_counts(self) -> np.ndarray:
        """(N, 3) IoU, 1, 1 of each sample, whose summed `2 a / (b + c)` is the mean IoU."""
        ious = np.array(self.ious)
        return np.stack([ious, np.ones_like(ious), np.ones_like(ious)], axis=1)
