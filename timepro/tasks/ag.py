"""Audio grounding: all intervals of one described sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timepro.data.clips import Clip, Query
from timepro.events import Event
from timepro.tasks.base import (
    MENDED,
    PRECISION,
    RECALL,
    UNPARSABLE,
    Column,
    Sample,
    Task,
    Times,
)
from timepro.tasks.types import Answers, Metrics, References

if TYPE_CHECKING:
    import numpy as np


class AudioGrounding(Task):
    """One sample a query; its events have an empty label."""

    name = "ag"
    asks = "When does this sound occur: {query}?"
    needs = "a query"
    labels = "none"
    main_metric = "miou"
    columns = (
        Column("eb_f1_micro", "Eb-F1 micro"), Column("miou", "mIoU"), Column("r_at_0.5", "R@0.5"),
        Column("r_at_0.7", "R@0.7"), Column("r_at_0.9", "R@0.9"), Column("r1_at_0.5", "R1@0.5"),
        Column("r1_at_0.7", "R1@0.7"), Column("map", "mAP"), PRECISION, RECALL, UNPARSABLE, MENDED,
    )  # fmt: skip

    def samples(self, clip: Clip, times: Times) -> list[Sample]:
        return [
            Sample(
                f"{clip.id}#{number}", self.name, clip.audio, clip.duration, self.question(query.text),
                _intervals(clip, query, "exact"), _intervals(clip, query, times),
            )
            for number, query in enumerate(clip.queries)
        ]  # fmt: skip

    def metrics(self, references: References, answers: Answers) -> Metrics:
        """Adds r_at_0.3 to r_at_0.9, the share of samples whose IoU is at least that; F1 is on times alone."""
        from timepro.metrics.intervals import THRESHOLDS, recall_at
        from timepro.metrics.moments import moment_scores
        from timepro.tasks.scoring import ScoredEvents

        scored = ScoredEvents(references, answers, use_label=False)
        both = (references, scored.estimates)  # an answer's first interval is its surest
        shares = {f"r_at_{threshold}": share for threshold, share in recall_at(scored.ious, THRESHOLDS).items()}
        moments = moment_scores(*([[(e.onset, e.offset) for e in own] for own in side] for side in both))
        return scored.report({"eb_f1_micro": scored.f1.micro.f1}, shares | moments)

    def counts(self, references: References, answers: Answers) -> np.ndarray:
        from timepro.tasks.scoring import ScoredEvents

        return ScoredEvents(references, answers, use_label=False).iou_counts()


def _intervals(clip: Clip, query: Query, times: Times) -> tuple[Event, ...]:
    intervals = query.intervals if times == "exact" else query.annotated_intervals
    if intervals is None:
        raise ValueError(
            f"clip {clip.id}: query {query.text!r} has no annotated_intervals; set sft.label_times to auto or exact"
        )
    return tuple(Event(onset, offset, "") for onset, offset in intervals)
