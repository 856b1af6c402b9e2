"""Dense audio captioning: a sentence for every event."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from timepro.data.clips import Clip
from timepro.events import Event
from timepro.tasks.base import MENDED, PRECISION, RECALL, UNPARSABLE, Column, Task, Times
from timepro.tasks.types import Answers, Metrics, References

if TYPE_CHECKING:
    from timepro.metrics.meteor import Meteor


class DenseAudioCaptioning(Task):
    """Every event of the clip, with its caption as the label."""

    name = "dac"
    asks = "Describe every sound event with its start and end times."
    labels = "captions"
    main_metric = "eb_f1_time"
    columns = (
        Column("eb_f1_time", "Eb-F1 time"), Column("eb_f1_label", "Eb-F1 caption"), Column("meteor", "METEOR"),
        Column("meteor_matched", "METEOR matched"), Column("miou", "mIoU"), PRECISION, RECALL, UNPARSABLE, MENDED,
    )  # fmt: skip

    def events(self, clip: Clip, times: Times) -> list[Event]:
        missing = [e.label for e in clip.events if not e.caption]
        if missing:
            raise ValueError(f"clip {clip.id}: events {missing} have no caption, which task dac needs")
        if times == "exact":
            return sorted(Event(event.onset, event.offset, str(event.caption)) for event in clip.events)
        # One event at a time: `labelled` sorts, and the order of annotated times need not be that of the exact ones.
        return sorted(
            Event(timed.onset, timed.offset, str(event.caption))
            for event in clip.events
            for timed in replace(clip, events=(event,)).labelled(times)
        )

    def metrics(self, references: References, answers: Answers) -> Metrics:
        """Four of captions: eb_f1_time, eb_f1_label, meteor and meteor_matched (`timepro.metrics.captions`)."""
        from timepro.metrics.captions import caption_scores
        from timepro.tasks.scoring import ScoredEvents

        scored = ScoredEvents(references, answers, use_label=False)
        scores = caption_scores(references, answers, _meteor())
        return scored.report(
            {
                "eb_f1_time": scores.eb_f1_time,
                "eb_f1_label": scores.eb_f1_label,
                "meteor": scores.meteor,
                "meteor_matched": scores.meteor_matched,
            }
        )


@functools.cache
def _meteor() -> Meteor:
    """One Java process for all evaluations of this process."""
    from timepro.metrics.meteor import Meteor

    return Meteor()
