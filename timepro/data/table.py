"""Tables of events, a row an event: the one grammar of headers and rows that every reader uses.

The first line names the columns, in any order and among others, separated by tabs, commas or semicolons. A field may
stand in double quotes, with a quote inside written twice, and white space around a field is not part of it. A row
whose onset, offset and label are empty, missing or `nan` names a file without events. A byte order mark, CRLF and blank
lines are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from timepro.data.files import bounded_lines
from timepro.data.manifest import shown
from timepro.data.values import is_missing

MAX_LINE = 1 << 16
"""Bytes of the longest row that is read; a longer line is not a row of events."""

COLUMNS = ("filename", "onset", "offset", "event_label")
CAPTION = "caption"  # an optional column
CONFIDENCE = "confidence"  # another: how sure a system is, from 0 to 1

NAN_ROW = "row with 'nan' or the like for onset, offset and label: a file without events"
BARE_ROW = "row with the file's name alone: a file without events"

_SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon"}
# Other programs' names for our columns, for the hint in an error; they are not read without being asked for.
_OTHER_NAMES = {
    "filename": ("file", "file_name", "audio", "audio_file", "path", "filepath", "begin file", "segment_id", "clip"),
    "onset": ("start", "start_time", "start_time_seconds", "begin", "begin time (s)", "onset_s", "start_s", "t_start"),
    "offset": ("end", "end_time", "end_time_seconds", "stop", "end time (s)", "offset_s", "end_s", "t_end"),
    "event_label": ("label", "class", "event", "sound", "annotation", "class_name", "category", "name", "tag"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, by the columns asked for; columns that the header lacks are left out.

    problem: what is wrong with the row as a whole, "" for nothing; the cells are then as far as they could be read.
    bare: fields at the row's end are missing.
    """

    line: int
    cells: dict[str, str]
    problem: str = ""
    bare: bool = False


@dataclass(frozen=True, slots=True)
class EventRow:
    """A row about an event, or about a file without events (``silent``).

    name: of the audio file; "" in a row that does not even say that. repair: how it was read otherwise than it stands.
    """

    line: int
    name: str
    onset: str = ""
    offset: str = ""
    label: str = ""
    caption: str | None = None
    silent: bool = False
    repair: str = ""
    problem: str = ""
    confidence: str | None = None


def split_row(line: str, separator: str) -> list[str]:
    """The fields of a row, without white space and quotes around them. Raises ValueError for a quote left open."""
    if '"' not in line:
        return [field.strip() for field in line.split(separator)]
    fields, at = [], 0
    while True:
        field = _field(separator).match(line, at)
        if field is None:
            raise ValueError('a field begins with a quote and does not end with one; write a quote inside quotes as ""')
        quoted = field["quoted"]
        fields.append((field["plain"] if quoted is None else quoted.replace('""', '"')).strip())
        at = field.end() + 1
        if at > len(line):
            return fields


@lru_cache(maxsize=8)
def _field(separator: str) -> re.Pattern[str]:
    # Possessive, so that a quote left open is found in linear time.
    separator = re.escape(separator)
    space = rf"(?:(?!{separator})\s)*+"
    quoted, plain = r'"(?P<quoted>(?:[^"]|"")*+)"', rf'(?P<plain>(?!")[^{separator}]*+)'
    return re.compile(rf"{space}(?:{quoted}{space}|{plain})(?={separator}|$)")


class Table:
    """A table with the wanted columns.

    Args:
        columns: our names of the columns -> the header's.
        optional: those of them that the header may lack.

    Raises:
        ValueError: the first line is not a header with these columns.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], optional: Sequence[str] = ()) -> None:
        self.path = path
        line, header = first_line(path)
        self.separator, self.names = read_header(f"{path}:{line}", header, columns, optional)
        self._header_line = line
        self._at = {name: self.names.index(title) for name, title in columns.items() if title in self.names}

    def has(self, name: str) -> bool:
        """Whether the header names this column; ``name`` is ours."""
        return name in self._at

    def rows(self) -> Iterator[Row]:
        """All rows behind the header; blank lines are left out."""
        for number, raw in bounded_lines(self.path, MAX_LINE):
            if number <= self._header_line or (raw is not None and not raw.strip()):
                continue
            yield self._row(number, raw)

    def _row(self, number: int, raw: bytes | None) -> Row:
        if raw is None:
            return Row(number, {}, f"the line is longer than {MAX_LINE:,} bytes; is this the right file?")
        try:
            fields = split_row(raw.decode(), self.separator)
        except UnicodeDecodeError as problem:
            return Row(number, {}, f"not UTF-8 text ({problem.reason} at byte {problem.start}); save it as UTF-8")
        except ValueError as problem:
            return Row(number, {}, str(problem))
        width = len(self.names)
        cells = {name: fields[at] if at < len(fields) else "" for name, at in self._at.items()}
        if any(fields[width:]):
            return Row(
                number,
                cells,
                f"{len(fields):,} fields, but the header names {width}; "
                f'put a label that holds a {_SEPARATORS[self.separator]} into "..."',
            )
        return Row(number, cells, bare=len(fields) < width)


def event_rows(table: Table) -> Iterator[EventRow]:
    """The rows of a table with at least the columns `COLUMNS`."""
    for row in table.rows():
        yield _event_row(row)


def _event_row(row: Row) -> EventRow:
    name = row.cells.get("filename", "")
    if row.problem:
        return EventRow(row.line, name, problem=row.problem)
    if is_missing(name):
        return EventRow(row.line, "", problem=f"'filename' is {name!r}; every row must name its audio file")
    values = [row.cells[column] for column in COLUMNS[1:]]
    missing = [column for column, value in zip(COLUMNS[1:], values, strict=True) if is_missing(value)]
    if len(missing) == 3:
        repair = NAN_ROW if any(values) else BARE_ROW if row.bare else ""
        return EventRow(row.line, name, silent=True, repair=repair)
    if missing:
        value = row.cells[missing[0]]
        found = f"is {value!r}, which stands for no value" if value else "is empty"
        advice = "fill it, or empty all three for a file without events"
        return EventRow(row.line, name, problem=f"column {missing[0]!r} {found}; {advice}")
    onset, offset, label = values
    caption, confidence = (row.cells.get(key) or None for key in (CAPTION, CONFIDENCE))
    return EventRow(row.line, name, onset, offset, label, caption, confidence=confidence)


# ---------------------------------------------------------------- the header


def first_line(path: Path) -> tuple[int, str]:
    """Number and text of the first line that is not blank. Raises ValueError for one that can be no header."""
    for number, raw in bounded_lines(path, MAX_LINE):
        if raw is None:
            raise ValueError(f"{path}:{number}: has no header line; expected names of columns")
        if not raw.strip():
            continue
        try:
            return number, raw.decode()
        except UnicodeDecodeError as problem:
            raise ValueError(
                f"{path}:{number}: not UTF-8 text ({problem.reason} at byte {problem.start}); save it as UTF-8"
            ) from None
    return 1, ""


def read_header(
    where: str, line: str, columns: Mapping[str, str], optional: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """The separator, which is the one that finds most of the wanted columns, and the names of all columns.

    Raises ValueError for a wanted column that is not there, or stands there twice.
    """
    splits = {separator: split_header(line, separator) for separator in _SEPARATORS}
    wanted = set(columns.values())
    separator = max(splits, key=lambda s: (len(wanted & set(splits[s])), len(splits[s])))
    names = splits[separator]
    if missing := [name for name, title in columns.items() if title not in names and name not in optional]:
        needed = ", ".join(title for name, title in columns.items() if name not in optional)
        raise ValueError(
            f"{where}: the header {shown_header(line)} has no column {' or '.join(repr(columns[m]) for m in missing)}"
            f"{_hint(missing, names, columns)}; the first line must name {needed}, separated by "
            f"{', '.join(_SEPARATORS.values())}"
        )
    for title in columns.values():
        if names.count(title) > 1:
            raise ValueError(f"{where}: column {title!r} stands twice in the header; rename one of the two")
    return separator, names


def split_header(line: str, separator: str) -> list[str]:
    """The fields of a header, if the separator is this one; the line as one field where its quotes do not fit that."""
    try:
        return split_row(line, separator)
    except ValueError:
        return [line.strip()]


def shown_header(line: str) -> str:
    """A header in a message, shortened."""
    return repr(line) if len(line) <= 200 else shown(line)


def _hint(missing: Sequence[str], names: Sequence[str], columns: Mapping[str, str]) -> str:
    """What the columns may be called here, as an option to give."""
    if "onset" not in columns:  # a table of something else, such as durations
        return ""
    lower = {name.lower(): name for name in names}
    found = {
        column: lower[other]
        for column in missing
        if columns[column] == column
        for other in reversed(_OTHER_NAMES.get(column, ()))
        if other in lower and lower[other] not in columns.values()
    }
    pairs = ",".join(f"{column}={title}" for column, title in found.items())
    return f"; is it --columns {pairs!r}?" if found else ""


def columns_named(pairs: str) -> dict[str, str]:
    """Our names of the columns -> a file's, from "onset=start,offset=end"; columns not named keep their names.

    Raises:
        ValueError: not such pairs, or a column that no reader asks for.
    """
    known = (*COLUMNS, CAPTION)
    columns = {name: name for name in known}
    for pair in pairs.split(",") if pairs else []:
        name, _, title = (part.strip() for part in pair.partition("="))
        if name not in known or not title:
            raise ValueError(f"--columns: {pair!r} is not OURS=YOURS with one of {', '.join(known)} for OURS")
        columns[name] = title
    return columns
