"""What event files are read into, and how one event is checked, whatever the format.

References are strict: an event without length or before 0 s is an error of the annotation. Predictions are another
system's answer and are scored as they are: an event without length counts as a false positive, as in `sed_eval`, and
one that begins before 0 s is cut there, and in JSON a label may be empty or hold control
characters, as in a model's answer. All are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from timepro.data.repairs import Repairs
from timepro.data.values import BadValue, is_missing, seconds, share, text
from timepro.events import Event

Role = Literal["reference", "predictions"]

NO_LENGTH = "event predicted without length: scored as a false positive"
ODD_LABEL = "event predicted with an empty label, or control characters in it: of no class"
BEFORE_ZERO = "event predicted to begin before 0 s: cut to begin at 0"
ODD_CONFIDENCE = "confidence that is no share of 0 to 1: not kept"


@dataclass
class FileEvents:
    """The events of one audio file.

    ok: False for a model's answer that could not be read. duration in seconds, None where the file does not say it.
    samples: several answers to the same clip, None where there are none.
    confidences: of 0 to 1, one an event and None where an event has none; None where no event has one.
    """

    events: list[Event] = field(default_factory=list)
    duration: float | None = None
    ok: bool = True
    samples: list[list[Event]] | None = None
    confidences: list[float | None] | None = None

    def add(self, event: Event, confidence: float | None = None) -> None:
        """Append an event, with its confidence where it has one."""
        if confidence is not None and self.confidences is None:
            self.confidences = [None] * len(self.events)
        self.events.append(event)
        if self.confidences is not None:
            self.confidences.append(confidence)


_SHOWN = 20  # problems of a file in a message


class Bad(Exception):
    """A problem inside one row or object; the reader adds file and line."""


class Problems:
    """Collects what is wrong with a file, so that all of it is said at once."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, place: str, message: object) -> None:
        """Note a problem; place: file and line."""
        self.found.append((place, str(message)))

    def refuse(self, path: object) -> None:
        """Raise ValueError with the problems, the first of them in full; do nothing where there are none."""
        lines = [f"{place}: {message}" for place, message in self.found[:_SHOWN]]
        if len(lines) == 1:
            raise ValueError(lines[0])
        if lines:
            more = len(self.found) - len(lines)
            heading = f"{path} has {len(self.found):,} problems:"
            raise ValueError("\n  ".join([heading, *lines, *([f"and {more:,} more"] if more else [])]))


@dataclass(frozen=True)
class EventMaker:
    """Makes checked events of one side; lists what it mended, and takes note of problems for `read_event_file`."""

    role: Role
    repairs: Repairs
    problems: Problems = field(default_factory=Problems)

    def __call__(self, onset: Any, offset: Any, label: Any, naming: Callable[[str], str], place: str) -> Event:
        """One event.

        Args:
            naming: how a message calls the value of one of `COLUMNS`: "column 'onset'", "key 'events[0].onset'".
            place: file and line.

        Raises:
            Bad: a value of the wrong kind.
        """
        predicted = self.role == "predictions"
        start, end = (_time(value, naming(name), predicted) for value, name in ((onset, "onset"), (offset, "offset")))
        if start > end or (start == end and not predicted):
            raise Bad(f"{naming('offset')}: onset {start} s is not before offset {end} s; correct one of them")
        if start < 0:
            start, end = 0.0, max(end, 0.0)
            self.repairs.add(BEFORE_ZERO, place)
        if start == end:
            self.repairs.add(NO_LENGTH, place)
        try:
            return Event(start, end, text(label))
        except BadValue as problem:
            raise Bad(f"{naming('event_label')}: {problem}") from None

    def confidence(self, value: Any, place: str) -> float | None:
        """The confidence of an event; one that is none is listed and left out, since nothing is scored by it."""
        if is_missing(value):
            return None
        try:
            return share(value)
        except BadValue:
            self.repairs.add(ODD_CONFIDENCE, place)
            return None


def _time(value: Any, where: str, below_zero: bool) -> float:
    try:
        return seconds(value, below_zero)
    except BadValue as problem:
        raise Bad(f"{where}: {problem}") from None


def duration_of(value: Any, naming: Callable[[str], str]) -> float:
    """The stated length of a file in seconds. Raises Bad for no length at all."""
    duration = _time(value, naming("duration"), below_zero=False)
    if duration == 0:
        raise Bad(f"{naming('duration')}: a file of 0 s holds nothing to score; correct it")
    return duration


def name_of(value: Any) -> str:
    """The name of an audio file. Raises Bad for none."""
    if not isinstance(value, str) or not value.strip():
        raise Bad(f"'filename' is {value!r}; every row and object must name its audio file")
    return value


def column(name: str) -> str:
    """How a message calls a table's column."""
    return f"column {name!r}"


def key(where: str) -> Callable[[str], str]:
    """How a message calls a key of an object: ``where`` is what stands before it, such as "events[0]."."""
    return lambda name: f"key '{(where + name).rstrip('.')}'"
