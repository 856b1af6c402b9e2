"""What a monitor says to its receivers. Each message has an id that stays the same however often it is sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from timepro.inference.monitor.timeline import iso

Message = dict[str, Any]
# An event's alert and its end; the stream's loss and return; sound that nobody listened to.
ALERT, END, LOST, BACK, SKIPPED = "alert", "end", "stream_lost", "stream_back", "audio_skipped"


def event_id(monitor: str, label: str, onset: float) -> str:
    """The same sound at the same moment has the same id, also when it is heard again after a restart."""
    return hashlib.sha256(f"{monitor}\n{label}\n{onset:.3f}".encode()).hexdigest()[:20]


def without_password(source: str) -> str:
    """A source as it may be shown: an address without user, password and query."""
    if "://" not in source:
        return source
    address = urlsplit(source)
    host = address.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((address.scheme, f"{host}:{address.port}" if address.port else host, address.path, "", ""))


@dataclass(frozen=True)
class Writer:
    """Writes messages for one monitor.

    Args:
        monitor: its name.
        source: as it may be shown.
        zone: time zone of the times; None for this machine's.
    """

    monitor: str
    source: str
    zone: tzinfo | None

    def alert(self, event: str, label: str, onset: float, confidence: float, clip: str) -> Message:
        """The one alert of an event, while it may still go on."""
        return self._of_event(ALERT, event, label, onset, confidence, clip)

    def end(
        self, event: str, label: str, onset: float, offset: float, confidence: float, clip: str, why: str
    ) -> Message:
        """The end of an event that was alerted."""
        times = {"offset": iso(offset, self.zone), "duration_s": round(offset - onset, 3), "reason": why}
        return self._of_event(END, event, label, onset, confidence, clip) | times

    def stream(self, kind: str, moment: float, since: float, why: str) -> Message:
        """The stream was lost or came back; `since` names the loss, so that both belong together."""
        loss = event_id(self.monitor, LOST, since)
        return self._message(f"{loss}-{kind}", kind) | {
            "event": loss, "time": iso(moment, self.zone), "since": iso(since, self.zone), "reason": why,
        }  # fmt: skip

    def skipped(self, moment: float, seconds: float, why: str) -> Message:
        """Sound up to a moment that was not listened to."""
        return self._message(f"{event_id(self.monitor, SKIPPED, moment)}-{SKIPPED}", SKIPPED) | {
            "time": iso(moment, self.zone), "duration_s": round(seconds, 3), "reason": why,
        }  # fmt: skip

    def _of_event(self, kind: str, event: str, label: str, onset: float, confidence: float, clip: str) -> Message:
        return self._message(f"{event}-{kind}", kind) | {
            "event": event, "label": label, "onset": iso(onset, self.zone), "confidence": round(confidence, 4),
            "clip": clip,
        }  # fmt: skip

    def _message(self, identity: str, kind: str) -> Message:
        return {"id": identity, "kind": kind, "monitor": self.monitor, "source": self.source}
