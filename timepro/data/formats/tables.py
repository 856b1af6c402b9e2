"""Tab-separated annotations with a line an event, gathered clip by clip on disk.

Files of a million lines are read in memory that does not grow: the lines go through a temporary database, since those
of one clip need not be neighbours. Line ends may be LF or CRLF, a byte order mark is passed over, quotes mean nothing.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from timepro.data.files import bounded_lines, text_lines
from timepro.data.formats.base import Problem, RawEvent
from timepro.data.manifest import shown

MAX_LINE = 1 << 16
"""Bytes of the longest line that is read."""


@dataclass(frozen=True)
class ClipRows:
    """The lines about one clip: line number of the first, its events, and what is wrong with the lines themselves."""

    name: str
    line: int
    events: tuple[RawEvent, ...]
    problems: tuple[Problem, ...]


def table_header(path: Path) -> list[str]:
    """The columns' names. Raises ValueError for a file whose first line cannot be one."""
    for _, line in bounded_lines(path, MAX_LINE):
        if line is None:
            break
        return line.decode(errors="replace").split("\t")
    raise ValueError(f"{path}: has no header line; expected names of columns, separated by tabs")


class EventTable:
    """A table whose header names the four columns (clip, onset, offset, label); others may stand beside them.

    A line with the clip alone says that the clip has no events.
    """

    def __init__(self, path: Path, file: str, columns: tuple[str, str, str, str]) -> None:
        self.path, self.file, self.columns = path, file, columns
        header = table_header(path)
        if missing := [name for name in columns if name not in header]:
            raise ValueError(
                f"{path}:1: no column {' or '.join(map(repr, missing))}; the header is {shown(header)}, "
                f"expected are {', '.join(columns)}, separated by tabs"
            )
        self._width, self._at = len(header), [header.index(name) for name in columns]

    def count(self) -> int:
        """Number of clips."""
        return len({row[0] for row in self._rows() if isinstance(row, tuple)})

    def clips(self) -> Iterator[ClipRows | Problem]:
        """The clips in the order of their first lines, and the lines that belong to no clip."""
        with closing(sqlite3.connect("")) as database:  # "": a file of its own that vanishes with the connection
            database.execute("CREATE TABLE lines (clip, line INTEGER, onset, offset, label, problem)")
            for row in self._rows():
                if isinstance(row, Problem):
                    yield row
                else:
                    database.execute("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?)", row)
            rows = database.execute(
                "SELECT clip, line, onset, offset, label, problem FROM lines "
                "ORDER BY MIN(line) OVER (PARTITION BY clip), line"
            )
            for name, lines in itertools.groupby(rows, key=lambda row: row[0]):
                yield self._clip(name, list(lines))

    def _rows(self) -> Iterator[tuple[str, int, str, str, str, str | None] | Problem]:
        """(clip, line number, onset, offset, label, what is wrong), or a problem where not even the clip is known."""
        for number, line in bounded_lines(self.path, MAX_LINE):
            if number == 1 or (line is not None and not line.strip()):
                continue
            if line is None:
                yield self._problem(number, f"the line is longer than {MAX_LINE:,} bytes; is this the right file?")
                continue
            try:
                fields = line.decode().split("\t")
            except UnicodeDecodeError as problem:
                yield self._problem(number, f"not UTF-8 text ({problem.reason} at byte {problem.start}); convert it")
                continue
            at = self._at[0]
            name = fields[at].strip() if at < len(fields) else ""
            if not name:
                yield self._problem(number, f"no {self.columns[0]} in {shown(line.decode())}")
            elif len(fields) != self._width:
                wrong = f"{len(fields):,} columns where the header has {self._width}; is there a tab inside a label?"
                yield name, number, "", "", "", wrong
            else:
                onset, offset, label = (fields[i] for i in self._at[1:])
                yield name, number, onset, offset, label, None

    def _problem(self, line: int, message: str, clip: str = "") -> Problem:
        return Problem(self.file, line, clip, "line", message)

    def _clip(self, name: str, rows: list[tuple]) -> ClipRows:
        events, problems = [], []
        for _, line, onset, offset, label, wrong in rows:
            if wrong:
                problems.append(self._problem(line, wrong, name))
            elif onset.strip() or offset.strip() or label.strip():
                events.append(RawEvent(onset, offset, label, line))
        return ClipRows(name, rows[0][1], tuple(events), tuple(problems))


def read_pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """Lines of two columns as (line number, first, second), without white space around them; blank lines are left out.

    Raises ValueError, naming file and line, for anything else.
    """
    for number, text in text_lines(path, MAX_LINE):
        if not text.strip():
            continue
        fields = [field.strip() for field in text.split("\t")]
        if len(fields) != 2:
            raise ValueError(f"{path}:{number}: {len(fields):,} columns; expected two, separated by one tab")
        yield number, fields[0], fields[1]
