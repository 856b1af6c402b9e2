"""Sound events and their text format: how an answer is written, and the entrance to reading one.

A model answers with text, everything behind it (metrics, rewards, plots) sees events. Two styles are written:

    timestamps   <0.40>dog_bark<1.20><2.00>glass_breaking<2.40>
    digits       dog_bark 0.40-1.20; glass_breaking 2.00-2.40

An answer without events is ``none`` in both. Grounding asks for one sound, so its events have an empty label and are
written ``<0.40><1.20>`` or ``0.40-1.20``.

Reading (`timepro.answers`) is tolerant, because early in training answers are rarely well formed and a reward needs to
see the difference between nearly right and nonsense.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from timepro.answers.times import MAX_SECONDS

if TYPE_CHECKING:
    from timepro.timestamps import TimestampVocabulary

STYLES = ("timestamps", "digits")
NO_EVENTS = "none"


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One sound event, ``[onset, offset)`` in seconds. The label is a class, a caption, or "" for grounding."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What could be read from an answer.

    events: in the order of the text, duplicates kept (they are the model's answer).
    ok: the answer is usable: events were read, or it says that there are none.
    repairs: what had to be mended or dropped, in the order of the text.
    """

    events: list[Event]
    ok: bool
    repairs: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether the answer follows the written format (white space and number of decimals aside)."""
        return self.ok and not self.repairs


# ---------------------------------------------------------------- writing


def write_answer(events: Iterable[Event], style: str, vocabulary: TimestampVocabulary | None = None) -> str:
    """Write events as an answer's text, sorted by onset, offset and label.

    style: "timestamps" (needs ``vocabulary``, whose grid the times are snapped to) or "digits" (two decimals).
    An event shorter than one step of the grid is written one step long: an interval without length cannot be read.
    Raises ValueError for an unknown style, a missing vocabulary, a time that is negative or not finite, an event
    with onset >= offset, or a label that would not be read back as it is.
    """
    if style not in STYLES:
        raise ValueError(f"unknown answer style {style!r}; valid styles: {', '.join(STYLES)}")
    if style == "timestamps" and vocabulary is None:
        raise ValueError("write_answer: style 'timestamps' needs a vocabulary=TimestampVocabulary(...)")
    ordered = sorted(events)
    if not ordered:
        return NO_EVENTS
    for event in ordered:
        _check_writable(event, style)
    if style == "digits":
        return "; ".join(_in_digits(event) for event in ordered)
    assert vocabulary is not None
    return "".join(_in_timestamps(event, vocabulary) for event in ordered)


def _check_writable(event: Event, style: str) -> None:
    if not (math.isfinite(event.onset) and math.isfinite(event.offset) and 0 <= event.onset < event.offset):
        raise ValueError(f"cannot write {event}: need finite times with 0 <= onset < offset (seconds)")
    if event.offset > MAX_SECONDS:
        raise ValueError(f"cannot write {event}: times beyond {MAX_SECONDS:.0f} s would be refused when read")
    if not _survives(event.label, style):
        raise ValueError(
            f"cannot write label {event.label!r} in style {style!r}: it would not be read back as it is. "
            "Remove line breaks, ';', '<...>' stamps, intervals, bullets, repeated or surrounding white space and "
            "punctuation at its ends"
        )


@lru_cache(maxsize=65_536)
def _survives(label: str, style: str) -> bool:
    """Whether a label, written between two neighbours, is read back unchanged and without repair."""
    pattern = "<1.00>{0}<2.00>" if style == "timestamps" else "{0} 1.00-2.00; "
    text = pattern.format(label) + pattern.format(label).removesuffix("; ")
    answer = parse_answer(text)
    return answer.clean and answer.events == [Event(1.0, 2.0, label)] * 2


def _in_digits(event: Event) -> str:
    onset, offset = round(event.onset * 100), round(event.offset * 100)
    offset = max(offset, onset + 1)
    return f"{event.label} {onset / 100:.2f}-{offset / 100:.2f}".strip()


def _in_timestamps(event: Event, vocabulary: TimestampVocabulary) -> str:
    onset, offset = vocabulary.index(event.onset), vocabulary.index(event.offset)
    if offset <= onset:
        onset, offset = (onset, onset + 1) if onset + 1 < vocabulary.size else (onset - 1, onset)
    return f"{vocabulary.token(onset)}{event.label}{vocabulary.token(offset)}"


# ---------------------------------------------------------------- reading


def parse_answer(text: str) -> ParsedAnswer:
    """Read the events of an answer, in either style or in whatever comes near it. Never raises, linear time.

    ``ok`` is True when events were read or the answer says that there are none; it is False for the empty string and
    for text without a readable event. Everything that is not exactly as written is a repair:

    - times: "from 1.2 to 3.4 seconds", "between 1.2s and 3.4s", "starts at 1.2 and ends at 3.4", "Start: 1.2" over
      "End: 3.4", "[1.2, 3.4]", "0:01.2 - 0:03.4", "1200-3400 ms", other dashes, arrows, digits of other scripts;
    - shape: sentences, lists, tables, JSON, code fences, labels behind their interval or on a line of their own,
      an answer behind a reasoning model's thoughts;
    - mended: a reversed interval is swapped, an interval without a label takes that of the one before it;
    - dropped: an interval without length, negative or with an absurd time, an event without its end, stray text.
    """
    from timepro.answers.parse import read_answer  # which needs Event from here

    return read_answer(text)
