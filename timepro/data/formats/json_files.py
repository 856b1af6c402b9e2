"""JSON annotations: lists of any length, read item by item, and single objects of a bounded size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from timepro.data.manifest import shown

MAX_ITEM = 16 << 20
"""Characters of the longest item, or bytes of the longest single object, that is read."""
_PIECE = 1 << 20
_SPACE = " \t\n\r"


def json_object(path: Path) -> Any:
    """The value in a file of at most `MAX_ITEM` bytes. Raises ValueError, without the path, for anything else."""
    size = path.stat().st_size
    if size > MAX_ITEM:
        raise ValueError(f"{size:,} bytes, more than the {MAX_ITEM:,} that an annotation may have")
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        raise ValueError(f"not UTF-8 text ({problem.reason} at byte {problem.start})") from None
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"not valid JSON: {problem}") from None


def json_items(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, item) of a file that holds one JSON list; one item is in memory at a time.

    Raises ValueError, naming file and line, where the file is no list, breaks off or is not JSON.
    """
    with open(path, encoding="utf-8-sig") as file:
        text = _Text(path, file)
        if (first := text.next()) != "[":
            kind = "an object" if first == "{" else "something else"
            raise ValueError(f"{path}:{text.line()}: expected a JSON list, '[...]', this is {kind}")
        text.at += 1
        number = 0
        while text.next() != "]":
            if number:
                if text.next() != ",":
                    raise ValueError(f"{path}:{text.line()}: not valid JSON: expected ',' or ']' behind item {number}")
                text.at += 1
                text.next()
            number += 1
            yield number, text.value(number)
        text.at += 1
        if text.next():
            raise ValueError(f"{path}:{text.line()}: not valid JSON: more text behind the list")


class _Text:
    """A window on a text file; ``at`` is where in ``held`` the next value begins."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file
        self.held, self.at = "", 0
        self._lines = 1  # the number of the line on which ``held`` begins

    def more(self) -> bool:
        """Forget what has been used and read on: twice what is left, so that long items stay cheap."""
        self._lines += self.held.count("\n", 0, self.at)
        rest = self.held[self.at :]
        try:
            piece = self.file.read(max(_PIECE, len(rest)))
        except UnicodeDecodeError as problem:
            raise ValueError(f"{self.path}: not UTF-8 text ({problem.reason}); convert the file") from None
        self.held, self.at = rest + piece, 0
        return bool(piece)

    def next(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            while self.at < len(self.held) and self.held[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                return ""

    def line(self) -> int:
        return self._lines + self.held.count("\n", 0, self.at)

    def value(self, number: int) -> Any:
        """Read the value that begins here and step behind it."""
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self.held, self.at)
            except RecursionError:
                raise ValueError(f"{self.path}:{self.line()}: item {number} is nested too deeply") from None
            except json.JSONDecodeError as problem:
                if len(self.held) - self.at > MAX_ITEM:
                    raise ValueError(
                        f"{self.path}:{self.line()}: item {number} is broken or longer than {MAX_ITEM:,} characters"
                    ) from None
                if not self.more():
                    excerpt = shown(self.held[self.at :])
                    raise ValueError(
                        f"{self.path}:{self.line()}: item {number} is not valid JSON: {problem.msg} in {excerpt}"
                    ) from None
                continue
            ended = isinstance(value, (dict, list, str)) or self.held[end : end + 1] in tuple(f",]{_SPACE}")
            if not ended and self.more():
                continue  # a number may go on
            self.at = end
            return value
