"""Reads answers in JSON and its relatives, whatever the keys are called, mangled and cut off as they come.

    [{"label": "dog", "onset": 0.4, "offset": 1.2}]    {"events": [{"event": "dog", "time": "0.4-1.2"}]}
    {"dog": [[0.4, 1.2], [3, 4]]}                      [["dog", 0.4, 1.2]]      [[0.4, 1.2]]

One pass over the tokens with a stack of open brackets: no recursion, so that depth is no danger. A bracket is
interpreted when it closes (or when the text ends): it adds events, or hands intervals without a label to the one
around it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from timepro.answers.reader import Reader, excerpt
from timepro.answers.times import FULL_TIME, INTERVAL

_TOKEN = re.compile(
    r"""(?P<open>[\[{(])|(?P<close>[\]})])|(?P<colon>[:=])|(?P<comma>,)|"(?P<double>(?:[^"\\]++|\\.)*+)"?"""
    r"""|(?<![^\W_])'(?P<single>(?:[^'\\\n]++|\\.)*+)'?|(?P<bare>[^\s\[\]{}(),:="]++)|(?P<space>\s++)""",
    re.DOTALL,
)
_LABEL = re.compile(
    r"(?:sound|audio)?event(?:label|name|type)?|(?:class)?name|label|class|sound|category|caption|description"
    r"|text|type|tag|phrase|query|content|title"
)
# Keys that say where the intervals are, and nothing about what they are of.
_PLACE = re.compile(
    r"(?:time)?(?:stamp|interval|segment|span|range|period)s?|times?|timings?|temporal|when|duration|(?:sound)?events?"
    r"|results?|annotations?|detections?|occurrences?|answers?|output|data"
)
_ONSETS = re.compile(r"(?:t?start|onset|begin|from)")
_OFFSETS = re.compile(r"(?:t?end|offset|stop|finish|until|to$)")
_STRAIGHT = str.maketrans("\u201c\u201d", '""')


@dataclass(frozen=True, slots=True)
class _Interval:
    onset: str
    offset: str
    onset_unit: str | None = None
    unit: str | None = None


@dataclass(slots=True)
class _Bracket:
    """An open bracket. items: (key or None, a scalar's text or intervals without a label)."""

    kind: str
    items: list[tuple[str | None, str | list[_Interval]]] = field(default_factory=list)
    key: str | None = None
    words: list[str] = field(default_factory=list)

    def end_item(self) -> None:
        if self.words:
            self.items.append((self.key, " ".join(self.words)))
        self.key, self.words = None, []


class StructuredReader(Reader):
    """Events of a text with brackets in it.

    Args:
        text: what to read.

    Attributes:
        unlabelled: how many of the events had no label.
        texts: strings with an interval among other words, as in `{"answer": "dog 0.40-1.20"}`; not read here.
        says_none: brackets without anything in them, as in `[]` or `{"events": []}`.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.unlabelled = 0
        self.texts: list[str] = []
        self._scalars = 0
        self._stack = [_Bracket("")]
        if '"' not in text:
            text = text.translate(_STRAIGHT)
        first = re.search(r"[\[{]", text)
        assert first is not None
        self.stray(re.sub(r"```\w*", "", text[: first.start()]))
        for token in _TOKEN.finditer(text, first.start()):
            self._take(token)
        if len(self._stack) > 1:
            self.leave_out("brackets not closed")
        while len(self._stack) > 1:
            self._close()
        for interval in self._loose(self._stack[0]):
            self.unlabelled += 1
            self._add(interval, "")
        self.says_none = not self.events and not self._scalars
        self.repairs.insert(0, "brackets instead of the written format")

    def _take(self, token: re.Match[str]) -> None:
        top = self._stack[-1]
        match token.lastgroup:
            case "open":
                self._stack.append(_Bracket(token.group()))
            case "close":
                if len(self._stack) > 1:
                    self._close()
            case "colon":
                top.key, top.words = " ".join(top.words), []
            case "comma":
                top.end_item()
            case "space" | None:
                pass
            case kind:
                top.words.append(_unescaped(token[kind]) if kind == "double" else token[kind])

    def _close(self) -> None:
        bracket = self._stack.pop()
        bracket.end_item()
        for value in (value for _, value in bracket.items if isinstance(value, str)):
            self._scalars += 1
            if INTERVAL.search(value) and _interval(value) is None:
                self.texts.append(value)
        intervals = self._object(bracket) if bracket.kind == "{" else self._list(bracket)
        parent = self._stack[-1]
        if intervals:
            parent.items.append((parent.key, intervals))
        parent.key, parent.words = None, []

    def _object(self, bracket: _Bracket) -> list[_Interval]:
        """The intervals of an object that has no label for them."""
        onset = offset = label = None
        intervals: list[_Interval] = []
        keyed: list[tuple[str, list[_Interval]]] = []
        for key, value in bracket.items:
            name = re.sub(r"[^a-z]", "", (key or "").lower())
            if isinstance(value, str) and _LABEL.fullmatch(name) and _interval(value) is None:
                label = label or value.strip()
            elif _ONSETS.match(name):
                onset = value
            elif _OFFSETS.match(name):
                offset = value
            elif found := value if isinstance(value, list) else list(filter(None, [_interval(value)])):
                if not name or _PLACE.fullmatch(name):
                    intervals += found
                else:
                    keyed.append((str(key), found))
        if isinstance(onset, str) and isinstance(offset, str) and (pair := _pair(onset, offset)):
            intervals.append(pair)
        elif onset is not None or offset is not None:
            self.leave_out(f"times missing or unreadable, event dropped: {excerpt(label or '')}")
        for key, found in keyed:
            for interval in found:
                self._add(interval, label or key.strip())
        if label is None:
            return intervals
        for interval in intervals:
            self._add(interval, label)
        return []

    def _list(self, bracket: _Bracket) -> list[_Interval]:
        """The intervals of a list that has no label for them."""
        intervals = self._loose(bracket)
        scalars = [value for _, value in bracket.items if isinstance(value, str)]
        times = [value for value in scalars if FULL_TIME.fullmatch(value)]
        words = [value for value in scalars if not FULL_TIME.fullmatch(value) and _interval(value) is None]
        if len(times) == 2 and (pair := _pair(*times)):
            intervals.append(pair)
        elif times:
            self.repairs.append(f"{len(times)} times in brackets, expected 2: {excerpt(', '.join(times[:8]))}")
        if len(words) != 1 or not intervals:
            return intervals
        for interval in intervals:
            self._add(interval, words[0].strip())
        return []

    def _loose(self, bracket: _Bracket) -> list[_Interval]:
        found: list[_Interval] = []
        for _, value in bracket.items:
            if isinstance(value, list):
                found += value
            elif interval := _interval(value):
                found.append(interval)
        return found

    def _add(self, interval: _Interval, label: str) -> None:
        self.add(interval.onset, interval.offset, " ".join(label.split()), interval.onset_unit, interval.unit)


def _interval(text: str) -> _Interval | None:
    found = INTERVAL.fullmatch(text.strip(" ")) if len(text) <= 80 else None
    return _Interval(found["onset"], found["offset"], found["unit1"], found["unit2"]) if found else None


def _pair(onset: str, offset: str) -> _Interval | None:
    first, second = (FULL_TIME.fullmatch(text.strip(" +")) for text in (onset, offset))
    if first is None or second is None:
        return None
    return _Interval(first["time"], second["time"], first["unit"], second["unit"])


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
