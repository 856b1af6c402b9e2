"""What the API wants of the engine behind it: a recording and a question in, events out, while it can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rollout.events_api.models import EventsFields, FoundEvent, Spectrogram
from rollout.events_api.problems import Problem
from timepro.inference.detections import ConfidenceKind


@dataclass(frozen=True)
class Heard:
    """What a listener found in a recording.

    Args:
        duration: seconds of audio listened to.
        notes: what the caller should know.
    """

    duration: float
    task: str
    question: str
    confidence_kind: ConfidenceKind | None
    events: list[FoundEvent]
    notes: list[str] = field(default_factory=list)
    spectrogram: Spectrogram | None = None


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class Job:
    """One recording that is being listened to, in a thread of its own; a listener reports to it at least every window.

    Args:
        max_audio_s: longest recording.
        tell: called with (seconds behind, seconds in all or None), from the listener's thread.
    """

    def __init__(self, max_audio_s: float, tell: Callable[[float, float | None], None]) -> None:
        self._most, self._tell = max_audio_s, tell
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the next report end the work."""
        self._stopped.set()

    def at(self, position: float, duration: float | None = None) -> None:
        """Report how far it is, in seconds of audio.

        Raises:
            Stopped: the caller has gone, or its time is over.
            Problem: the recording is longer than the server takes.
        """
        if self._stopped.is_set():
            raise Stopped
        if max(position, duration or 0.0) > self._most:
            length = f"{duration:.0f} s" if duration else f"more than {self._most:.0f} s"
            raise Problem(
                413, "too_long", f"The recording has {length}.",
                f"This server listens to at most {self._most:.0f} s of audio a request.",
                "Cut it into parts, or start the server with a larger --max-audio.",
            )  # fmt: skip
        self._tell(position, duration)


class Listener(Protocol):
    """A checkpoint that can be asked. Its methods are called from several threads at a time."""

    @property
    def name(self) -> str:
        """The checkpoint's, for people."""

    @property
    def tasks(self) -> Sequence[str]:
        """Short names of the tasks that it was trained for."""

    @property
    def classes(self) -> Sequence[str]:
        """Labels that it was trained on; empty where labels are free text."""

    def listen(self, path: Path, asked: EventsFields, job: Job) -> Heard:
        """Find the events of a recording.

        Raises:
            ValueError: a recording or a question that cannot be answered, said so that the caller can mend it.
            RuntimeError: the model did not answer.
        """
