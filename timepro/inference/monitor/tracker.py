"""What becomes of the sounds that are heard: events that begin, alert once, go on, and always end.

Pure: time is a position on the stream in seconds, which only grows, and nothing here asks a clock. So a clock that
jumps changes no event, and the rules can be tested on any sequence of sounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

SAME_WITHIN_S = 0.1
Kind = Literal["begin", "alert", "end"]


@dataclass(frozen=True, slots=True)
class Heard:
    """A sound in one window, `[onset, offset)` as positions on the stream in seconds."""

    onset: float
    offset: float
    label: str
    confidence: float


@dataclass(frozen=True)
class LabelRules:
    """The rules of one label, complete; see `settings.Rules`."""

    threshold: float = 0.5
    min_duration_s: float = 0.0
    max_not_heard_s: float = 5.0
    cool_down_s: float = 30.0
    in_schedule: Callable[[float], bool] = lambda position: True


@dataclass
class OpenEvent:
    """An event that has not ended.

    Args:
        onset: position of its beginning; does not change once it has begun.
        offset: until where it was heard.
        heard_s: for how long it was heard.
        confidence: the highest so far.
        begun: it is long enough to be an event.
        alerted: somebody was told.
        identity: set by whoever begins it, see `Change`.
    """

    label: str
    onset: float
    offset: float
    heard_s: float = 0.0
    confidence: float = 0.0
    begun: bool = False
    alerted: bool = False
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Something that happened to an event: it began, it is to be told (once), it has ended.

    Args:
        reason: of an end: "not heard", or what the caller gave.
    """

    kind: Kind
    event: OpenEvent
    reason: str = ""


@dataclass
class Tracker:
    """The events of one label, of which at most one is open.

    Args:
        quiet_until: position until which the cool-down of the last alerted event lasts.
        ended: offset of the last event; nothing before it is heard again.
    """

    label: str
    rules: LabelRules
    open: OpenEvent | None = None
    quiet_until: float = float("-inf")
    ended: float = float("-inf")

    def hear(self, heard: Heard) -> list[Change]:
        """Take a sound in; those of one label come in the order of their onsets, give or take a window's overlap."""
        onset = max(heard.onset, self.ended)
        if heard.onset < self.ended and heard.offset <= self.ended + max(self.rules.max_not_heard_s, SAME_WITHIN_S):
            return []  # the end of an event that was told: by another window, or before a restart
        if heard.confidence < self.rules.threshold or heard.offset <= onset:
            return []
        changes: list[Change] = []
        if self.open is not None and onset > self.open.offset + self.rules.max_not_heard_s:
            changes = self._end("not heard")
        if self.open is None:
            self.open = OpenEvent(self.label, onset, onset)
        event = self.open
        if not event.begun:
            event.onset = min(event.onset, onset)
        event.heard_s += max(0.0, heard.offset - max(onset, event.offset))
        event.offset = max(event.offset, heard.offset)
        event.confidence = max(event.confidence, heard.confidence)
        if not event.begun and event.heard_s + 1e-9 >= self.rules.min_duration_s:
            event.begun = True
            changes.append(Change("begin", event))
        if event.begun and not event.alerted and any(map(self._may_alert, (onset, heard.offset))):
            event.alerted = True
            changes.append(Change("alert", event))
        return changes

    def advance(self, position: float, reason: str = "not heard") -> list[Change]:
        """Everything before this position has been listened to; ends what has not been heard for too long."""
        if self.open is not None and position > self.open.offset + self.rules.max_not_heard_s:
            return self._end(reason)
        return []

    def close(self, reason: str) -> list[Change]:
        """Listening ends here, and with it an open event."""
        return self._end(reason) if self.open is not None else []

    def _may_alert(self, position: float) -> bool:
        return position >= self.quiet_until and self.rules.in_schedule(position)

    def _end(self, reason: str) -> list[Change]:
        event, self.open = self.open, None
        assert event is not None
        if not event.begun:  # too short to have been an event
            return []
        self.ended = event.offset
        if event.alerted:
            self.quiet_until = event.offset + self.rules.cool_down_s
        return [Change("end", event, reason)]
