"""All labels' events: from what is heard to messages in the queues, with the state that a restart needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timepro.inference.monitor.clips import ClipWriter
from timepro.inference.monitor.history import History
from timepro.inference.monitor.messages import Message, Writer, event_id
from timepro.inference.monitor.state import State, write_state
from timepro.inference.monitor.timeline import Timeline
from timepro.inference.monitor.tracker import Change, Heard, LabelRules, OpenEvent, Tracker

_MOST_TRACKERS = 1000
_COMMIT_S = 5.0  # while an event goes on, how old what is known of its end may be after a kill


@dataclass(frozen=True)
class Outlets:
    """Where changes go.

    Args:
        put: queues a message for every receiver; it is on the disk once this returns.
        clips: the sound of alerts.
        history: for the page.
        say: takes lines for the user.
        state_path: the file of the state.
    """

    put: Callable[[Message], None]
    clips: ClipWriter
    history: History
    say: Callable[[str], None]
    state_path: Path


class Events:
    """The trackers of all labels.

    Args:
        rules: of a label, or None for one that nobody listens for.
        timeline: moments of positions.
        writer: of messages.
        outlets: see `Outlets`.
        state: of the last start; kept up to date.
    """

    def __init__(
        self,
        rules: Callable[[str], LabelRules | None],
        timeline: Timeline,
        writer: Writer,
        outlets: Outlets,
        state: State,
    ) -> None:
        self.state, self.alerts = state, 0
        self._rules, self._timeline, self._writer, self._outlets = rules, timeline, writer, outlets
        self._trackers: dict[str, Tracker | None] = {}
        self._committed = -_COMMIT_S

    def restore(self, latest: float) -> None:
        """Go on from the last start: deliver what may not have reached the queues, take open events up again.

        Args:
            latest: no event can have been heard after this position; a clock that was set since may say so.
        """
        for message in self.state.outbox:
            self._outlets.put(message)
        for label, kept in self.state.trackers.items():
            tracker = self._tracker(label)
            if tracker is None:
                if kept["open"] is not None:  # nobody listens for this label any more
                    gone = Tracker(label, LabelRules(), _open_event(kept["open"], self._timeline, latest))
                    self._tell(gone.close("stopped"))
                continue
            here = self._timeline.position
            if kept["ended"] is not None:
                tracker.ended = min(latest, here(kept["ended"]))
            if kept["quiet_until"] is not None:
                tracker.quiet_until = min(latest + tracker.rules.cool_down_s, here(kept["quiet_until"]))
            if kept["open"] is not None:
                tracker.open = _open_event(kept["open"], self._timeline, latest)
        self.commit([])

    def hear(self, sounds: Iterable[Heard]) -> None:
        """Take sounds in."""
        changes: list[Change] = []
        for sound in sorted(sounds, key=lambda sound: sound.onset):
            tracker = self._tracker(sound.label)
            changes += tracker.hear(sound) if tracker is not None else []
        self._tell(changes)

    def advance(self, position: float, reason: str = "not heard") -> None:
        """Everything before this position has been listened to, or (another reason) cannot be."""
        self._tell([change for one in self._all() for change in one.advance(position, reason)])
        if any(one.open for one in self._all()) and time.monotonic() - self._committed >= _COMMIT_S:
            self.commit([])

    def close(self, reason: str) -> None:
        """End all events."""
        self._tell([change for one in self._all() for change in one.close(reason)])

    def commit(self, messages: list[Message]) -> None:
        """Write the state with messages, then queue them."""
        idle = [label for label, one in self._trackers.items() if one is None or one.open is None]
        for label in idle[: max(0, len(self._trackers) - _MOST_TRACKERS)]:  # a model that writes captions has no end
            del self._trackers[label]
        self.state.trackers = {one.label: self._kept(one) for one in self._all()}
        self.state.outbox = messages
        self._committed = time.monotonic()
        try:
            write_state(self._outlets.state_path, self.state)
        except OSError as error:
            self._outlets.say(
                f"{self._outlets.state_path} cannot be written: {error.strerror or error}; a restart would go on from "
                "an older state: make room on the disk"
            )
        for message in messages:
            self._outlets.put(message)

    def open_labels(self) -> list[str]:
        """Labels with an event that goes on."""
        return [one.label for one in self._all() if one.open is not None and one.open.begun]

    def _tell(self, changes: list[Change]) -> None:
        messages = [message for change in changes if (message := self._message(change)) is not None]
        if changes:
            self.commit(messages)

    def _message(self, change: Change) -> Message | None:
        event, message = change.event, None
        if change.kind == "begin":
            wall = self._timeline.wall(event.onset)
            event.identity = {"event": event_id(self._writer.monitor, event.label, wall), "onset": wall, "clip": ""}
        identity, wall, clip = event.identity["event"], event.identity["onset"], event.identity["clip"]
        if change.kind == "alert":
            self.alerts += 1
            clip = event.identity["clip"] = self._outlets.clips.begin(identity, event.label, event.onset, wall)
            message = self._writer.alert(identity, event.label, wall, event.confidence, clip)
        if change.kind == "end" and event.alerted:
            self._outlets.clips.end(identity, event.offset)
            if not self._outlets.clips.is_coming(identity) and not (self._outlets.clips.folder / clip).is_file():
                clip = ""  # its sound was in the memory of a process that was killed
            offset = wall + event.offset - event.onset
            message = self._writer.end(identity, event.label, wall, offset, event.confidence, clip, change.reason)
        offset_known = wall + event.offset - event.onset if change.kind == "end" else None
        self._outlets.history.note(
            {
                "event": identity, "label": event.label, "onset": wall, "offset": offset_known, "clip": clip,
                "confidence": round(event.confidence, 4), "alerted": event.alerted,
            }
        )  # fmt: skip
        return message

    def _tracker(self, label: str) -> Tracker | None:
        if label not in self._trackers:
            rules = self._rules(label)
            self._trackers[label] = None if rules is None else Tracker(label, rules)
        return self._trackers[label]

    def _all(self) -> list[Tracker]:
        return [one for one in list(self._trackers.values()) if one is not None]

    def _kept(self, tracker: Tracker) -> dict[str, Any]:
        def moment(position: float) -> float | None:
            return None if math.isinf(position) else self._timeline.wall(position)

        event = None
        if tracker.open is not None:
            onset = tracker.open.identity.get("onset", self._timeline.wall(tracker.open.onset))
            offset = onset + tracker.open.offset - tracker.open.onset
            event = asdict(tracker.open) | {"onset": onset, "offset": offset}
        return {"open": event, "quiet_until": moment(tracker.quiet_until), "ended": moment(tracker.ended)}


def _open_event(kept: dict[str, Any], timeline: Timeline, latest: float) -> OpenEvent:
    """An open event of the last start, heard at `latest` at the latest."""
    length = kept["offset"] - kept["onset"]
    offset = min(latest, timeline.position(kept["offset"]))
    return OpenEvent(**{**kept, "onset": offset - length, "offset": offset})
