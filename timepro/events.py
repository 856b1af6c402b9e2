"""Sound events and their text format: the only file that knows how an answer is written and read.

A model answers with text, everything behind it (metrics, rewards, plots) sees events. Two styles are written:

    timestamps   <0.40>dog_bark<1.20><2.00>glass_breaking<2.40>
    digits       dog_bark 0.40-1.20; glass_breaking 2.00-2.40

An answer without events is ``none`` in both. Grounding asks for one sound, so its events have an empty label and are
written ``<0.40><1.20>`` or ``0.40-1.20``.

Reading is tolerant, because early in training answers are rarely well formed and a reward needs to see the difference
between nearly right and nonsense. It never raises, and takes time linear in the length of the text: every repetition
in the patterns is possessive (``++``) or bounded, so a failed match cannot backtrack.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timepro.timestamps import TimestampVocabulary

STYLES = ("timestamps", "digits")
NO_EVENTS = "none"
MAX_SECONDS = 86_400.0  # a time beyond one day is noise, not an answer
_MAX_DIGITS = 24  # longer numbers are refused before they reach float()
_EXCERPT = 32


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

_DASH = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212~"
_NUMBER = r"(?:[0-9]++(?:\.[0-9]++)?+|\.[0-9]++)"
_UNIT = r"(?:seconds|second|secs|sec|s)\b"
_STAMP = re.compile(rf"<(?P<open> ?)(?P<time>{_NUMBER})(?P<unit> ?s?)>")
# `lead` must be "between" for "and" to join two times: "2 and 3-4" holds one interval, not two.
_INTERVAL = re.compile(
    rf"(?:(?<!\w)(?:(?P<between>between)|(?P<lead>from|at|during)) )?+(?<![\w.])"
    rf"(?P<onset>{_NUMBER})(?P<unit1> ?{_UNIT})?(?P<join> ?(?:[{_DASH}]|to\b|until\b|till\b|(?(between)and\b|-)) ?)"
    rf"(?P<offset>{_NUMBER})(?P<unit2> ?{_UNIT})?(?!\w|\.[0-9])",
    re.IGNORECASE,
)
_SPACES = re.compile(r"[^\S\n]++")
_BULLETS = re.compile(r"(?:[-*\u2022] |[0-9]{1,3}[.)] |and |then )++", re.IGNORECASE)
_VERB = re.compile(r" (?:occurs|occurring|happens|is heard|heard|is|are|was)$", re.IGNORECASE)
_JOINER = re.compile(rf"[{_DASH}:,]|to|until", re.IGNORECASE)
_NONE_PHRASES = frozenset(
    {"none", "no event", "no events", "no sound", "no sounds", "no sound event", "no sound events", "nothing"}
    | {"silence", "empty", "[]", "no events detected", "no sound events detected", "there are no events"}
    | {"there are no sound events"}
)


def parse_answer(text: str) -> ParsedAnswer:
    """Read the events of an answer, in either style or in prose. Never raises, linear time in ``len(text)``.

    ``ok`` is True when events were read or the answer says that there are none; it is False for the empty string and
    for text without a readable event. Beyond the written styles it takes "from 1.2 to 3.4 seconds", units, other
    dashes, intervals before their label, commas and line breaks between events; each of these is a repair, as are a
    reversed interval (swapped), an interval without length or with an absurd time (dropped), an event without its
    end (dropped) and stray text (ignored).
    """
    flat = _SPACES.sub(" ", text).strip()
    if not flat:
        return ParsedAnswer([], False, ("empty answer",))
    if flat == NO_EVENTS:
        return ParsedAnswer([], True)
    stamps, digits = _Reader(), _Reader()
    if any_stamp := _STAMP.search(flat):
        stamps.read_stamps(flat)
    if not stamps.events:
        digits.read_digits(flat)
    reader = stamps if stamps.events or (any_stamp and not digits.events) else digits
    if not reader.events and flat.strip(" .!\n").lower() in _NONE_PHRASES:
        return ParsedAnswer([], True, (f"other wording for {NO_EVENTS!r}",))
    if not reader.events:
        reader.repairs.append("no readable event")
    return ParsedAnswer(reader.events, bool(reader.events), tuple(reader.repairs))


def _excerpt(text: str) -> str:
    text = text[: 2 * _EXCERPT].strip()
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "\u2026")


def _seconds(number: str) -> float | None:
    """The number in seconds, or None where it is absurd."""
    value = float(number) if len(number) <= _MAX_DIGITS else math.inf
    return value if value <= MAX_SECONDS else None


class _Reader:
    """Collects events and repairs while one text is read from left to right."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.repairs: list[str] = []

    def add(self, onset_text: str, offset_text: str, label: str) -> bool:
        onset, offset = _seconds(onset_text), _seconds(offset_text)
        if onset is None or offset is None:
            self.repairs.append(f"absurd time, event dropped: {_excerpt(label)}")
            return False
        if onset == offset:
            self.repairs.append(f"interval without length dropped: {_excerpt(label)} at {onset:g}")
            return False
        if onset > offset:
            self.repairs.append(f"reversed interval swapped: {_excerpt(label)} {onset:g}-{offset:g}")
            onset, offset = offset, onset
        self.events.append(Event(onset, offset, label))
        return True

    def stray(self, text: str) -> None:
        if stripped := text.strip(" \n"):
            kind = "other separator" if not stripped.strip(",;.") else "stray text ignored:"
            self.repairs.append(f"{kind} {_excerpt(stripped)}")

    # -- style "timestamps"

    def read_stamps(self, text: str) -> None:
        stamps = list(_STAMP.finditer(text))
        if any(stamp["open"] or stamp["unit"] for stamp in stamps):
            self.repairs.append("space or unit inside a timestamp")
        end, index = 0, 0  # end: up to where the text has been used
        while index < len(stamps):
            start = stamps[index]
            before, end = text[end : start.start()], start.end()
            if index + 1 == len(stamps):
                self.stray(before)
                self.repairs.append(f"half-finished last event dropped: {_excerpt(text[start.start() :][:80])}")
                return
            stop = stamps[index + 1]
            inner = text[end : stop.start()].strip(" ")
            if ";" in inner or "\n" in inner:
                self.stray(before)
                self.repairs.append(f"missing end, event dropped: {_excerpt(inner)}")
                end, index = stop.start(), index + 1
                continue
            self._stamped(start["time"], stop["time"], inner, before)
            end, index = stop.end(), index + 2
        self.stray(text[end:])

    def _stamped(self, onset: str, offset: str, inner: str, before: str) -> None:
        """An event between two stamps; a label in front of them instead of between them is taken too."""
        if inner and not _JOINER.fullmatch(inner):
            self.stray(before)
            self.add(onset, offset, inner)
            return
        label = before.strip(" \n,;.:(")
        if inner or label:
            self.repairs.append(f"label outside its timestamps: {_excerpt(label)}")
        self.add(onset, offset, label)

    # -- style "digits"

    def read_digits(self, text: str) -> None:
        segments = re.split(r"(;|\n)", text)
        if "\n" in text:
            self.repairs.append("line breaks between events")
        for position in range(0, len(segments), 2):
            segment = segments[position].strip(" ")
            last = position + 1 == len(segments)
            if segment:
                self._segment(segment, last)
            elif position and segments[position - 1] == ";":
                self.repairs.append("other separator ';'")

    def _segment(self, segment: str, last: bool) -> None:
        intervals = list(_INTERVAL.finditer(segment))
        if not intervals:
            self._no_interval(segment, last)
            return
        label, end = "", 0
        tail = segment[intervals[-1].end() :]
        for number, interval in enumerate(intervals):
            own = self._label(segment[end : interval.start()], interval, first=number == 0)
            end = interval.end()
            if not own and not label and len(intervals) == 1 and (own := tail.strip(" :,.)]-")):
                self.repairs.append(f"label after its interval: {_excerpt(own)}")
                tail = ""
            elif not own and label:
                self.repairs.append(f"interval shares the label before it: {_excerpt(label)}")
            label = own or label
            if self._negative(segment, interval):
                self.repairs.append(f"negative time, event dropped: {_excerpt(label)}")
                continue
            self.add(interval["onset"], interval["offset"], label)
        self.stray(tail)

    def _no_interval(self, segment: str, last: bool) -> None:
        if last and (self.events or re.search(r"[0-9]", segment)):
            self.repairs.append(f"half-finished last event dropped: {_excerpt(segment)}")
        elif re.search(r"[0-9]", segment):
            self.repairs.append(f"missing end, event dropped: {_excerpt(segment)}")
        else:
            self.stray(segment)

    def _label(self, raw: str, interval: re.Match[str], first: bool) -> str:
        """The label in front of an interval, freed of list marks and prose; anything removed is a repair."""
        label = raw.strip(" ") if first else raw.lstrip(" ,.)]").rstrip(" ")
        marks = _BULLETS.match(label)
        bare = label[marks.end() :] if marks else label
        bare = bare.lstrip(" ,.)]").rstrip(f" :,([{_DASH}")
        lead = interval["lead"] or interval["between"]
        if lead:
            bare = _VERB.sub("", bare)
        if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'`":
            bare = bare[1:-1]
        joined = interval["join"] != "-" or interval["unit1"] or interval["unit2"]
        if bare != label or lead or joined or not first:
            self.repairs.append(f"loosely written interval: {_excerpt(interval.group())}")
        return bare

    @staticmethod
    def _negative(segment: str, interval: re.Match[str]) -> bool:
        """Whether a minus sign stands directly before the onset: "dog -0.4-1.2", but not "dog - 0.4-1.2"."""
        at = interval.start("onset") - 1
        return at >= 0 and segment[at] in "-\u2212" and (at == 0 or segment[at - 1] in " (,:[")
