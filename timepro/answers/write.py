"""Writes events as an answer's text; every label is read back first, so that what is written can be read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from timepro.answers.parse import NO_EVENTS, parse_answer
from timepro.answers.times import MAX_SECONDS
from timepro.events import Event

if TYPE_CHECKING:
    from timepro.timestamps import TimestampVocabulary

STYLES = ("timestamps", "digits")
REWORD = (
    "Remove line breaks, ';', '<...>' stamps, intervals such as 1-2, bullets, repeated or surrounding white space and "
    "punctuation at its ends"
)


def write_answer(events: Iterable[Event], style: str, vocabulary: TimestampVocabulary | None = None) -> str:
    """Write events as an answer's text, sorted by onset, offset and label.

    An event shorter than one step of the grid is written one step long: an interval without length cannot be read.

    Args:
        style: "timestamps" (needs `vocabulary`, whose grid the times are snapped to) or "digits" (two decimals).

    Raises:
        ValueError: an unknown style, a missing vocabulary, a time that is negative or not finite, an event with
            onset >= offset, or a label that would not be read back as it is.
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
    if not can_write(event.label, style):
        raise ValueError(
            f"cannot write label {event.label!r} in style {style!r}: it would not be read back as it is. {REWORD}"
        )


@lru_cache(maxsize=65_536)
def can_write(label: str, style: str) -> bool:
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
        onset, offset = (onset, onset + 1) if onset + 1 < vocabulary.steps else (onset - 1, onset)
    return f"{vocabulary.stamp(onset)}{event.label}{vocabulary.stamp(offset)}"
