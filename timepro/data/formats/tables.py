"""Tables of annotations with a line an event, gathered clip by clip on disk; `timepro.data.table` reads the lines.

Files of a million lines are read in memory that does not grow: the lines go through a temporary database, since those
of one clip need not be neighbours.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from timepro.data.files import bounded_lines, text_lines
from timepro.data.formats.base import Problem, RawEvent
from timepro.data.table import CAPTION, COLUMNS, MAX_LINE, EventRow, Table, event_rows, read_header

_FIELDS = ("line", "name", "onset", "offset", "label", "caption", "silent", "repair", "problem")


@dataclass(frozen=True)
class ClipRows:
    """The lines about one clip.

    line: number of the first. problems: what is wrong with the lines themselves. repairs: (kind, line) of what was read
    otherwise than it stands.
    """

    name: str
    line: int
    events: tuple[RawEvent, ...]
    problems: tuple[Problem, ...]
    repairs: tuple[tuple[str, int], ...] = ()


def has_event_columns(path: Path) -> bool:
    """Whether a table's header names the columns of events. Raises ValueError for a file that cannot have a header."""
    for number, line in bounded_lines(path, MAX_LINE):
        if line is None:
            break
        if line.strip():
            try:
                read_header(f"{path}:{number}", line.decode(errors="replace"), {name: name for name in COLUMNS})
            except ValueError:
                return False
            return True
    raise ValueError(f"{path}: has no header line; expected names of columns")


class EventTable:
    """A table of events.

    Args:
        file: its name in reports.
        columns: our names of the columns (`COLUMNS`, perhaps `CAPTION`) -> the table's.
    """

    def __init__(self, path: Path, file: str, columns: Mapping[str, str] | None = None) -> None:
        self.file = file
        self._table = Table(path, columns or {name: name for name in COLUMNS}, (CAPTION,))

    def names(self) -> dict[str, int]:
        """The clips' names, and the line of each one's first row."""
        found: dict[str, int] = {}
        for row in event_rows(self._table):
            if row.name:
                found.setdefault(row.name, row.line)
        return found

    def count(self) -> int:
        """Number of clips."""
        return len(self.names())

    def clips(self) -> Iterator[ClipRows | Problem]:
        """The clips in the order of their first lines, and the lines that belong to no clip."""
        with closing(sqlite3.connect("")) as database:  # "": a file of its own that vanishes with the connection
            database.execute(f"CREATE TABLE lines ({', '.join(_FIELDS)})")
            insert = f"INSERT INTO lines VALUES ({', '.join('?' * len(_FIELDS))})"
            for row in event_rows(self._table):
                if row.name:
                    database.execute(insert, tuple(getattr(row, field) for field in _FIELDS))
                else:
                    yield Problem(self.file, row.line, "", "line", row.problem)
            rows = database.execute(
                f"SELECT {', '.join(_FIELDS)} FROM lines ORDER BY MIN(line) OVER (PARTITION BY name), line"
            )
            for name, lines in itertools.groupby(rows, key=lambda row: row[1]):
                yield self._clip(name, [EventRow(**dict(zip(_FIELDS, line, strict=True))) for line in lines])

    def _clip(self, name: str, rows: list[EventRow]) -> ClipRows:
        return ClipRows(
            name,
            rows[0].line,
            tuple(
                RawEvent(row.onset, row.offset, row.label, row.line, row.caption)
                for row in rows
                if not (row.problem or row.silent)
            ),
            tuple(Problem(self.file, row.line, name, "line", row.problem) for row in rows if row.problem),
            tuple((row.repair, row.line) for row in rows if row.repair),
        )


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
