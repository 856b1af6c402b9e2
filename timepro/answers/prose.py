"""Reads answers in digits: `dog 0.40-1.20; rain 2.00-4.00`, lists, tables and sentences that come near it.

The text is cut at semicolons and line breaks into segments. A segment without an interval is a header for the ones
below it, a table's row, or stray; in a segment with intervals the gaps between them are the labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from timepro.answers.reader import Reader, excerpt, is_plain, named_in_quotes, tidy
from timepro.answers.stamps import STAMP
from timepro.answers.times import BRACKETED, DASH, FULL_TIME, INTERVAL, KEYED

_WRITTEN_TIMES = re.compile(r"(?P<onset>[0-9]++(?:\.[0-9]++)?+|\.[0-9]++)-(?P<offset>[0-9]++(?:\.[0-9]++)?+|\.[0-9]++)")
_VERB = re.compile(
    r" (?:(?:is|are|was|were|can be) (?:heard|audible|present|active)"
    r"|occurs?|occurring|happens?|happening|appears?|lasts?|runs|starts?|begins?|heard|is|are|was|were)$",
    re.IGNORECASE,
)
_CONJUNCTION = re.compile(
    rf"(?:[{DASH} ,.:)\]}}|&+/=@]++|[*\"'`]++(?=[ ,.:)\]}}|]|$)"
    r"|(?:and|while|then|again|also|plus|finally|followed by|as well as)(?=[ ,]|$))*+",
    re.IGNORECASE,
)
_REMARK = re.compile(r" ?\([^()]{1,60}+\)(?=[ ,.]|$)")  # "(confidence 0.9)" behind an interval
# A gap that begins by ending the label before it; a gap that ends by opening another one.
_CLOSED = re.compile(r"[ )\]}*\"'`]*+(?:[,.;|&]|(?:and|then|followed by)\b)", re.IGNORECASE)
_OPEN = re.compile(r"(?:[,.;|&]|\b(?:and|then|followed by))[ (\[*\"'`]{0,8}$", re.IGNORECASE)
_TRAILING = re.compile(r"(?:,? (?:and then|and|then|followed by))$", re.IGNORECASE)
_THERE_IS = re.compile(
    r"(?:there (?:is|are|was|were)|(?:i|we|you)(?: can)? hear|is|it is|(?:is )?the sound of) ", re.IGNORECASE
)
_LIST_MARK = re.compile(r"[#(]?\d{1,4}[.):]?")
_COLUMNS = re.compile(r" ?[|,] ?")
_FENCE = re.compile(r"```\w*")
_LETTER = re.compile(r"\w")
_FILE_NAME = re.compile(r"\S+\.(?:wav|flac|mp3|ogg|m4a)", re.IGNORECASE)
_DIGIT = re.compile(r"\d")


def read_written_digits(text: str) -> Reader | None:
    """Events of a text exactly as written, or None."""
    reader = Reader()
    if "\n" in text or STAMP.search(text):
        return None
    for segment in text.split(";"):
        label, _, times = segment.strip(" ").rpartition(" ")
        interval = _WRITTEN_TIMES.fullmatch(times)
        if interval is None or not is_plain(label):
            return None
        reader.add(interval["onset"], interval["offset"], label)
    return None if reader.repairs else reader


def read_prose(text: str) -> Reader:
    """Events of any text."""
    return _ProseReader(text).read()


@dataclass
class _Segment:
    """A piece of the text. gaps: what stands around its n intervals, n + 1 texts."""

    text: str
    separator: str  # in front of it
    last: bool
    intervals: list[re.Match[str]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        end = 0
        for interval in INTERVAL.finditer(self.text):
            self.intervals.append(interval)
            self.gaps.append(self.text[end : interval.start()])
            end = interval.end()
        self.gaps.append(self.text[end:])

    @property
    def is_bare(self) -> bool:
        """Whether its intervals have no label in the segment."""
        return bool(self.intervals) and not any(map(_core, self.gaps))

    def name(self) -> str:
        """The label that it could be for intervals on other lines; empty for anything but a line of words."""
        name = "" if self.intervals or _FENCE.fullmatch(self.text) else _core(self.text)
        return "" if _DIGIT.search(name) else name

    def labels_follow(self) -> bool:
        """Whether labels stand behind their intervals: "1-2 a dog, 3-4 a cat"."""
        first, *inner, tail = self.gaps
        named = [gap for gap in inner if _core(gap)]
        closed = [gap for gap in named if _CLOSED.match(gap)]
        if not _core(first):
            return bool(named or _core(tail)) and all(map(_OPEN.search, closed))
        # "In the recording, from 1 to 2 s a dog barks": a phrase that only leads to the interval.
        led = first.rstrip(" ").endswith(",") and (self.intervals[0]["lead"] or self.intervals[0]["between"])
        return bool(led and _core(tail) and not _CLOSED.match(tail) and not closed and all(map(_OPEN.search, named)))


class _ProseReader(Reader):
    def __init__(self, text: str) -> None:
        super().__init__()
        for pattern in (KEYED, BRACKETED):
            text, count = pattern.subn(r" \g<onset>\g<unit1> to \g<offset>\g<unit2> ", text)
            if count:
                self.repairs.append("times by name or in brackets")
        if "\n" in text:
            self.repairs.append("line breaks between events")
        pieces = re.split(r"(;|\n)", text)
        last = len(pieces) - 1
        self.segments = [
            _Segment(pieces[i].strip(" "), pieces[i - 1] if i else "", i == last) for i in range(0, len(pieces), 2)
        ]
        self.header: _Segment | None = None
        self.header_used = False
        self.below: bool | None = None  # whether labels stand on the line below their interval

    def read(self) -> Reader:
        segments = iter(zip(self.segments, [*self.segments[1:], None], strict=True))
        for segment, following in segments:
            if not segment.text:
                if segment.separator == ";":
                    self.repairs.append("other separator ';'")
            elif _FENCE.fullmatch(segment.text):
                self.repairs.append("code fence")
            elif segment.is_bare:
                if self._bare(segment, following):
                    next(segments)
            elif segment.intervals:
                self._set_header(None)
                self._labelled(segment)
            elif not self._row(segment.text):
                self._no_interval(segment)
        self._set_header(None)
        return self

    # -- segments with intervals

    def _bare(self, segment: _Segment, following: _Segment | None) -> bool:
        """Intervals without a label: it stands above, or below. Returns whether the line below was used up."""
        label, used = "", False
        if self.header:
            label, self.header_used = self.header.name(), True
        elif self.below is not False and following is not None and following.separator == "\n":
            label = following.name()
            self.below = used = bool(label)
        if label:
            self.repairs.append(f"label on a line of its own: {excerpt(label)}")
        elif self.events and (label := self.events[-1].label):
            self.repairs.append(f"interval shares the label before it: {excerpt(label)}")
        for number, interval in enumerate(segment.intervals):
            self._interval(segment, interval, label, loose=number > 0 or bool(segment.gaps[0]))
        self.stray(segment.gaps[-1])
        return used

    def _labelled(self, segment: _Segment) -> None:
        follow = segment.labels_follow()
        if follow:
            labels, after = [], ""
            for gap in reversed(segment.gaps[1:]):
                after = _named_behind(gap) or after
                labels.append(after)
            labels.reverse()
            self.stray(_core(segment.gaps[0]))
        else:
            labels = [
                _named_before(gap, interval) for gap, interval in zip(segment.gaps, segment.intervals, strict=False)
            ]
        before = ""
        for number, (interval, own) in enumerate(zip(segment.intervals, labels, strict=True)):
            if follow:
                self.repairs.append(f"label after its interval: {excerpt(own)}")
            elif not own and before:
                self.repairs.append(f"interval shares the label before it: {excerpt(before)}")
            before = own or before
            self._interval(segment, interval, before, loose=number > 0 or segment.gaps[0].strip(" ") != own)
        if not follow:
            self.stray(segment.gaps[-1])

    def _interval(self, segment: _Segment, interval: re.Match[str], label: str, loose: bool) -> None:
        if _is_negative(segment.text, interval):
            self.leave_out(f"negative time, event dropped: {excerpt(label)}")
            return
        if loose or not _WRITTEN_TIMES.fullmatch(interval.group()):
            self.repairs.append(f"loosely written interval: {excerpt(interval.group())}")
        self.add(interval["onset"], interval["offset"], label, interval["unit1"], interval["unit2"])

    # -- segments without

    def _row(self, text: str) -> bool:
        """Read a table's row: two neighbouring fields are times, the other fields are the label."""
        fields = [field for field in _COLUMNS.split(text.strip("|, ")) if field]
        if len(fields) < 2:
            fields = _fields_of_words(text)
        times = [FULL_TIME.fullmatch(field.strip("*\"'` ")) for field in fields]
        at = next((i for i in range(len(times) - 1) if times[i] and times[i + 1]), None)
        if at is None:
            return False
        if at == 0 and len(times) > 2 and times[2] and fields[0].isdigit() and not fields[1].isdigit():
            at = 1  # the row's number stands in front
        words = [name for name, time in zip(fields, times, strict=True) if not time and not _FILE_NAME.fullmatch(name)]
        self._set_header(None)
        self.repairs.append(f"times in columns: {excerpt(text)}")
        onset, offset = times[at], times[at + 1]
        assert onset and offset, "both columns hold a time"
        self.add(onset["time"], offset["time"], tidy(", ".join(words)), onset["unit"], offset["unit"])
        return True

    def _no_interval(self, segment: _Segment) -> None:
        has_digits = bool(_DIGIT.search(segment.text))
        if segment.last and (self.events or has_digits):
            self.leave_out(f"half-finished last event dropped: {excerpt(segment.text)}")
        elif _LIST_MARK.fullmatch(segment.text):
            self.repairs.append("list mark on a line of its own")
        elif segment.name():
            self._set_header(segment)
        elif has_digits:
            self.leave_out(f"missing end, event dropped: {excerpt(segment.text)}")
        else:
            self.stray(segment.text)

    def _set_header(self, segment: _Segment | None) -> None:
        """Take a line as the label of bare intervals below it; one that named nothing was stray."""
        if self.header and not self.header_used:
            self.stray(self.header.text)
        self.header, self.header_used = segment, False


def _without_conjunctions(text: str) -> str:
    start = _CONJUNCTION.match(text)  # of nothing, too
    return text[start.end() :] if start else text


def _core(gap: str) -> str:
    """What could be a label in a gap; empty where nothing but marks, separators and conjunctions is left."""
    text = tidy(gap)
    text = _without_conjunctions(text)
    text = tidy(_TRAILING.sub("", text.rstrip(" .")))
    return text if _LETTER.search(text) else ""


def _named_before(gap: str, interval: re.Match[str]) -> str:
    if remark := _REMARK.match(gap):
        gap = gap[remark.end() :]
    label = tidy(_without_conjunctions(gap))
    if interval["lead"] or interval["between"]:
        label = named_in_quotes(tidy(_VERB.sub("", label)))
    return label if _LETTER.search(label) else ""


def _named_behind(gap: str) -> str:
    label = _core(gap)
    there_is = _THERE_IS.match(label)
    return label[there_is.end() :] if there_is else label


def _fields_of_words(text: str) -> list[str]:
    """The fields of "1.2 3.4 dog" and "dog 1.2 3.4", where both times have decimals; else none."""
    words = text.split(" ")
    if len(words) > 1 and all("." in word and FULL_TIME.fullmatch(word) for word in words[:2]):
        return [*words[:2], *filter(None, [" ".join(words[2:])])]
    if len(words) > 1 and all("." in word and FULL_TIME.fullmatch(word) for word in words[-2:]):
        return [" ".join(words[:-2]), *words[-2:]]
    return []


def _is_negative(text: str, interval: re.Match[str]) -> bool:
    """Whether a minus sign stands directly before the onset: "dog -0.4-1.2", but not "dog - 0.4-1.2"."""
    at = interval.start("onset") - 1
    return at >= 0 and text[at] in "-\u2212" and (at == 0 or text[at - 1] in " (,:[")
