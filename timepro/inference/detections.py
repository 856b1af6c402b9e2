"""What a detector says: typed events with a confidence, and the times of their source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from timepro.events import Event

ConfidenceKind = Literal["share", "probability"]
"""What a confidence is. "share": of n sampled answers, the share that hold a matching event. "probability": the
geometric mean of the probabilities of the tokens that write the event in the greedy answer. Neither is comparable with
the other."""

KINDS: tuple[ConfidenceKind, ...] = ("share", "probability")


@dataclass(frozen=True, slots=True, order=True)
class Detection:
    """One detected event.

    Args:
        onset: in seconds from the start of its source (a file's first sample, a stream's first).
        offset: the same; `[onset, offset)`.
        label: a class, a caption, or the query that was asked about.
        confidence: in [0, 1]; None where whoever answered has none to give.
    """

    onset: float
    offset: float
    label: str
    confidence: float | None = None

    @property
    def event(self) -> Event:
        """The event alone, as metrics and event files take it."""
        return Event(self.onset, self.offset, self.label)

    def shifted(self, seconds: float) -> Detection:
        """The same event, later by so many seconds."""
        return Detection(self.onset + seconds, self.offset + seconds, self.label, self.confidence)


@dataclass(frozen=True, slots=True)
class SourceDetections:
    """All that was detected in one source: what is written to a file of events.

    Args:
        source: how the user named it: a path or an address.
        events: in order of their onsets.
        duration: of the source, in seconds; None where it is not known.
        kind: of the events' confidences; None where they have none.
        start: when the source began, with its time zone; None for a recording whose date is not known.
        below: what was heard and is not reported, its confidence being below the threshold; where it was asked for.
        problem: why a live stream ended before it was over; None for all others.
    """

    source: str
    events: Sequence[Detection]
    duration: float | None = None
    kind: ConfidenceKind | None = None
    start: datetime | None = None
    below: Sequence[Detection] = ()
    problem: str | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.start.tzinfo is None:
            raise ValueError(f"{self.source}: the start {self.start} has no time zone; give a datetime with one")

    def wall_clock(self, seconds: float) -> datetime | None:
        """When so many seconds from the source's start were, in the time zone of `start`; None without one."""
        return None if self.start is None else self.start + timedelta(seconds=seconds)
