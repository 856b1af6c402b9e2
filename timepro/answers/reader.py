"""What the readers share: collecting events and repairs, and freeing a label of marks and prose."""

from __future__ import annotations

import re

from timepro.answers.times import BRACKETED, DASH, INTERVAL, KEYED, seconds
from timepro.events import Event

_EXCERPT = 32

_BULLETS = re.compile(r"(?:[-*\u2022\u25cf\u00b7#>]++ |\(?\d{1,3}[.)]\*{0,2}(?: |$)|and |then )++", re.IGNORECASE)
_NAMING = r"(?:sound ?events?|events?|event[ _]label|labels?|class|category|caption)"
_PREFIX = re.compile(
    rf"[*\"'`]{{0,3}}(?:{_NAMING}|sound|description)(?: ?#?\d{{1,3}})?[*\"'`]{{0,3}} ?:[*\"'` ]*+", re.I
)
_SUFFIX = re.compile(
    r"[,(\[|]? ?[*\"'`]{0,3}(?:time(?:s|stamps?| intervals?| ranges?)?|intervals?|when|duration)[*\"'`]{0,3} ?[:=]?$",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    rf"\b(?:{_NAMING}|sound)(?: of| labell?ed| called| is)?:? [\"'`\u2018\u201c*]{{1,2}}"
    r"(?P<name>[^\"'`\u2018-\u201d*]{1,80}+)[\"'`\u2019\u201d*]{1,2}",
    re.IGNORECASE,
)
_MARKS = "\"'`*\u201c\u201d\u2018\u2019"
_CLOSING = {"\u201c": "\u201d", "\u2018": "\u2019"}
_MOST_MARKS = 4  # around a label, as in **"dog"**
_LABEL_END = f" :,([{{|=@`{DASH}"


def excerpt(text: str) -> str:
    """A short, quoted beginning of a text, for a repair."""
    text = text[: 2 * _EXCERPT].strip()
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "\u2026")


class Reader:
    """Collects events and repairs while one text is read from left to right."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.repairs: list[str] = []
        self.unread = 0

    def leave_out(self, why: str) -> None:
        """Leave out an event that was begun, or other text."""
        self.repairs.append(why)
        self.unread += 1

    def add(
        self, onset_text: str, offset_text: str, label: str, onset_unit: str | None = None, unit: str | None = None
    ) -> None:
        """Add an event from the text of its times; a unit behind the offset alone is the onset's too."""
        onset, offset = seconds(onset_text, onset_unit or unit), seconds(offset_text, unit or onset_unit)
        if onset is None or offset is None:
            self.leave_out(f"absurd time, event dropped: {excerpt(label)}")
        elif onset == offset:
            self.leave_out(f"interval without length dropped: {excerpt(label)} at {onset:g}")
        else:
            if onset > offset:
                self.repairs.append(f"reversed interval swapped: {excerpt(label)} {onset:g}-{offset:g}")
                onset, offset = offset, onset
            self.events.append(Event(onset, offset, label))

    def stray(self, text: str) -> None:
        """Report text that is not part of an event."""
        if stripped := text.strip(" \n"):
            if not stripped.strip(",;."):
                self.repairs.append(f"other separator {excerpt(stripped)}")
            else:
                self.leave_out(f"stray text ignored: {excerpt(stripped)}")


def tidy(label: str) -> str:
    """A label without list marks, naming words ("Event:"), quotes, emphasis and the punctuation at its end."""
    label = label.strip(" ")
    if marks := _BULLETS.match(label):
        label = label[marks.end() :]
    label = label.lstrip(" ,.)]|[{`").rstrip(_LABEL_END)
    if naming := _PREFIX.match(label):
        label = label[naming.end() :]
    if label and (suffix := _SUFFIX.search(label, max(0, len(label) - 24))) and _is_set_off(label, suffix):
        label = label[: suffix.start()].rstrip(_LABEL_END)
    for _ in range(_MOST_MARKS):
        if len(label) > 1 and label[0] in _MARKS and label[-1] == _CLOSING.get(label[0], label[0]):
            label = label[1:-1].strip(" ")
    return label


def _is_set_off(label: str, suffix: re.Match[str]) -> bool:
    """Whether "time" at the end names the interval ("dog, time: ", "(time") and is not the label's last word."""
    return suffix.start() == 0 or not suffix.group()[0].isalnum() and suffix.group()[0] != " "


def named_in_quotes(label: str) -> str:
    """The name that prose quotes ("The sound of 'dog barking' occurs"), or the label as it is."""
    quoted = _QUOTED.search(label[:200])
    return quoted["name"] if quoted else label


def is_plain(label: str) -> bool:
    """Whether a label needs no mending: `tidy` leaves it alone and nothing in it reads as an interval."""
    return tidy(label) == label and not any(pattern.search(label) for pattern in (INTERVAL, KEYED, BRACKETED))
