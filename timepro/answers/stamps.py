"""Reads answers in timestamp tokens: `<0.40>dog<1.20>`, and what comes near it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from timepro.answers.reader import Reader, excerpt
from timepro.answers.times import DASH, TIME

STAMP = re.compile(rf"<(?P<open>[ |]{{0,2}}+)(?P<time>{TIME})(?P<unit> ?s?)[ |]{{0,2}}+>")
_JOINER = re.compile(rf"[{DASH}:,]|to|until|and", re.IGNORECASE)
_MARKS = " \n,;.:()|*"
_LEAD = re.compile(r"(?:^|(?<= ))(?:from|between|at|during)$", re.IGNORECASE)


@dataclass(frozen=True)
class _Pair:
    onset: str
    offset: str
    before: str  # text in front of the first stamp
    inner: str  # text between the stamps


def read_written_stamps(text: str) -> Reader | None:
    """Events of a text exactly as written, or None."""
    reader, end = Reader(), 0
    stamps = STAMP.finditer(text)
    for start in stamps:
        stop = next(stamps, None)
        if stop is None or start.start() != end or not (_is_written(start) and _is_written(stop)):
            return None
        label, end = text[start.end() : stop.start()], stop.end()
        if ";" in label or "\n" in label or _JOINER.fullmatch(label) or label != label.strip(" "):
            return None
        reader.add(start["time"], stop["time"], label)
    return reader if reader.events and not reader.repairs and end == len(text) else None


def _is_written(stamp: re.Match[str]) -> bool:
    return stamp.group().isascii() and stamp.group()[1:-1].replace(".", "", 1).isdigit()


def read_stamps(text: str) -> Reader:
    """Events of a text with stamps anywhere in it."""
    reader = Reader()
    stamps = list(STAMP.finditer(text))
    if not all(map(_is_written, stamps)):
        reader.repairs.append("space, unit or other sign inside a timestamp")
    pairs, end, index = [], 0, 0  # end: up to where the text has been used
    half = None
    while index < len(stamps):
        start = stamps[index]
        before, end = text[end : start.start()], start.end()
        if index + 1 == len(stamps):
            half = start
            reader.stray(before)
            break
        stop = stamps[index + 1]
        inner = text[end : stop.start()].strip(" ")
        inner = "" if inner.isspace() else inner
        if ";" in inner or "\n" in inner:
            reader.stray(before)
            reader.leave_out(f"missing end, event dropped: {excerpt(inner)}")
            end, index = stop.start(), index + 1
            continue
        pairs.append(_Pair(start["time"], stop["time"], before, inner))
        end, index = stop.end(), index + 2
    tail = "" if half else text[end:]
    if _labels_follow(pairs, tail):
        behind = [*(pair.before for pair in pairs[1:]), tail]
        lines = [text.strip(" \n,").partition("\n") for text in behind]
        pairs = [_Pair(p.onset, p.offset, line[0], p.inner) for p, line in zip(pairs, lines, strict=True)]
        tail = "\n".join(line[2] for line in lines)
    for pair in pairs:
        _add(reader, pair)
    if half:
        reader.leave_out(f"half-finished last event dropped: {excerpt(text[half.start() :][:80])}")
    reader.stray(tail)
    return reader


def _labels_follow(pairs: list[_Pair], tail: str) -> bool:
    """Whether labels stand behind their stamps: "<1.00><2.00> dog, <3.00><4.00> cat"."""
    labels_inside = any(pair.inner and not _JOINER.fullmatch(pair.inner) for pair in pairs)
    return bool(pairs) and not labels_inside and not _outside(pairs[0].before) and bool(_outside(tail))


def _outside(text: str) -> str:
    return _LEAD.sub("", text.strip(_MARKS)).rstrip(_MARKS)


def _add(reader: Reader, pair: _Pair) -> None:
    """An event between two stamps; a label outside of them is taken too."""
    if pair.inner and not _JOINER.fullmatch(pair.inner):
        reader.stray(pair.before)
        reader.add(pair.onset, pair.offset, pair.inner)
        return
    above, _, line = pair.before.rstrip(" \n").rpartition("\n")
    reader.stray(above)
    label = _outside(line)
    if pair.inner or pair.before.strip(" "):
        reader.repairs.append(f"label outside its timestamps: {excerpt(label)}")
    reader.add(pair.onset, pair.offset, label)
