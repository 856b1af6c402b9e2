"""Decides how an answer is read: first exactly as it is written, then by the reader whose shape it comes nearest to."""

from __future__ import annotations

import re

from timepro.answers.prose import read_prose, read_written_digits
from timepro.answers.reader import Reader
from timepro.answers.stamps import STAMP, read_stamps, read_written_stamps
from timepro.answers.structured import StructuredReader
from timepro.events import ParsedAnswer

NO_EVENTS = "none"
_SPACES = re.compile(r"[^\S\n]++")
_LONGEST_DENIAL = 200
_DENIAL = re.compile(
    r"(?:answer: ?)?(?:(?:there (?:is|are|was|were) )?(?:no|not any) (?:[\w'-]+ ){0,6}?"
    r"(?:sounds?|events?|intervals?|segments?|timestamps?|occurrences?|match(?:es)?)(?: [\w'-]+){0,8}"
    r"|(?:the |this |that )?(?:[\w'\"-]+ ){0,8}?(?:does not|doesn't|do not|don't|did not|never) "
    r"(?:occurs?|appears?|happens?|exist)(?: [\w'-]+){0,8}"
    r"|(?:the |this |that )?(?:[\w'\"-]+ ){0,8}?(?:is|are|was|were) (?:not|absent|never)(?: [\w'-]+){0,8}"
    r"|there (?:is|are|was|were) no(?: [\w'-]+){1,8}"
    r"|none|no|nothing(?: [\w'-]+){0,3}|silence|silent|empty|n/a|null|\[\]|\(\))",
    re.IGNORECASE,
)


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
    body, notes = _final_part(text)
    flat = _SPACES.sub(" ", body).strip()
    if not flat:
        return ParsedAnswer([], False, (*notes, "empty answer"))
    if flat == NO_EVENTS:
        return ParsedAnswer([], True, notes)
    if written := read_written_stamps(flat) or read_written_digits(flat):
        return ParsedAnswer(written.events, True, notes)
    if "\t" in body:  # a column's border, which the written format has no use for
        flat = _SPACES.sub(lambda space: " | " if "\t" in space.group() else " ", body).strip()
    reader = _nearest_reader(flat)
    if reader.events:
        repairs = (*notes, *(reader.repairs or ["loosely written answer"]))
        return ParsedAnswer(reader.events, True, repairs, reader.unread)
    if _says_none(flat, reader):
        return ParsedAnswer([], True, (*notes, f"other wording for {NO_EVENTS!r}"))
    return ParsedAnswer([], False, (*notes, *reader.repairs, "no readable event"))


def _final_part(text: str) -> tuple[str, tuple[str, ...]]:
    """The text behind a reasoning model's thoughts and inside an answer's tags, and notes of what was left out."""
    notes: tuple[str, ...] = ()
    _, closing, rest = text.rpartition("</think>")
    if closing:
        notes, text = ("reasoning ignored",), rest
    elif "<think>" in text:
        return "", ("reasoning without an end",)
    _, opening, rest = text.rpartition("<answer>")
    if opening:
        notes, text = (*notes, "answer in tags"), rest.partition("</answer>")[0]
    return text, notes


def _nearest_reader(text: str) -> Reader:
    stamps = read_stamps(text) if STAMP.search(text) else None
    if stamps and stamps.events:
        return stamps
    structured = StructuredReader(text) if "[" in text or "{" in text else None
    if structured and structured.events and not structured.unlabelled:
        return structured
    prose = read_prose("\n".join(structured.texts) if structured and structured.texts else text)
    if structured and structured.events and not any(event.label for event in prose.events):
        return structured
    if prose.events:
        return prose
    return stamps or (structured if structured and structured.says_none else prose)


def _says_none(text: str, reader: Reader) -> bool:
    if isinstance(reader, StructuredReader) and reader.says_none:
        return True
    return len(text) <= _LONGEST_DENIAL and _DENIAL.fullmatch(text.strip(" .!\n`'\"")) is not None
