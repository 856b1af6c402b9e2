"""Reading events from files: tables (TSV, CSV) and JSON, as references and as predictions.

Tables have a header with the columns ``filename onset offset event_label``, in any order and among others, separated by
tabs, commas or semicolons. A row whose onset, offset and label are empty names a file without events.

JSON holds a list of objects, JSON Lines (``.jsonl``) one object a line. An object is a file with its events,

    {"filename": "a.wav", "events": [{"onset": 0.5, "offset": 1.2, "event_label": "Dog"}], "duration": 10.0}

or a single event, ``{"filename": "a.wav", "onset": 0.5, "offset": 1.2, "event_label": "Dog"}``, with the same rule for
a file without events (null for empty). ``id`` may stand for ``filename`` and ``label`` for ``event_label``, so a
manifest can be read, and so can the answers of a run (``eval/*.jsonl``): as predictions their ``events``, as references
their ``reference``. ``samples``, a list of lists of events, holds several answers to the same clip. Other columns and
keys are not looked at.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from timepro.events import Event

COLUMNS = ("filename", "onset", "offset", "event_label")
Role = Literal["reference", "predictions"]
_SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon"}
_MAX_LINE = 64 * 2**20  # bytes; a longer line is no row of events
_MAX_JSON = 2**30  # bytes; a larger list would not fit into memory beside its events


@dataclass
class FileEvents:
    """The events of one audio file.

    ok: False for a model's answer that could not be read. duration in seconds, None where the file does not say it.
    samples: several answers to the same clip, None where there are none.
    """

    events: list[Event] = field(default_factory=list)
    duration: float | None = None
    ok: bool = True
    samples: list[list[Event]] | None = None


class _Bad(Exception):
    """A problem inside one row or object; the reader adds file and line."""


def read_event_file(path: str | os.PathLike[str], role: Role) -> dict[str, FileEvents]:
    """File name -> events, in the order of the file; the format follows from its ending.

    Raises FileNotFoundError where it is missing, else ValueError that names file, line and column or key.
    """
    path = _checked(path)
    match path.suffix.lower():
        case ".tsv" | ".csv":
            return _read_table(path)
        case ".jsonl":
            return _collect(
                ((f"{path}:{number}", _parsed(f"{path}:{number}", line)) for number, line in _lines(path)), role
            )
        case ".json":
            return _collect(((f"{path}: item {index}", item) for index, item in enumerate(_json_list(path))), role)
    raise ValueError(f"{path}: unknown ending {path.suffix!r}; name the file *.tsv, *.csv, *.json or *.jsonl")


def read_durations(path: str | os.PathLike[str]) -> dict[str, float]:
    """File name -> duration in seconds, from a table with the columns ``filename duration``; errors as above."""
    durations: dict[str, float] = {}
    path = _checked(path)
    for number, row in _rows(path, ("filename", "duration")):
        try:
            name, duration = _name(row["filename"]), _duration(row["duration"], _column)
            if durations.setdefault(name, duration) != duration:
                raise _Bad(f"column 'duration': {name!r} has {durations[name]} s further up; keep one of the two")
        except _Bad as problem:
            raise ValueError(f"{path}:{number}: {problem}") from None
    return durations


def _checked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    return path


# ---------------------------------------------------------------- tables


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines, without line ends and without a byte order mark; blank lines are left out."""
    number = 0
    with open(path, "rb") as file:
        while raw := file.readline(_MAX_LINE + 1):
            number += 1
            if len(raw) > _MAX_LINE:
                raise ValueError(f"{path}:{number}: the line is longer than {_MAX_LINE >> 20} MiB; is this the file?")
            line = _decoded(f"{path}:{number}", raw, first=number == 1).rstrip("\r\n")
            if line.strip():
                yield number, line


def _decoded(where: str, raw: bytes, first: bool) -> str:
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{where}: not UTF-8 text ({problem.reason} at byte {problem.start}); save it as UTF-8"
        ) from None


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and the wanted columns of a table's rows, white space around a field removed."""
    lines = _lines(path)
    number, header = next(lines, (1, ""))
    separator, names = _header(f"{path}:{number}", header, columns)
    at = {column: names.index(column) for column in columns}
    for number, line in lines:
        fields = _split(f"{path}:{number}", line, separator)
        if len(fields) != len(names):
            raise ValueError(
                f"{path}:{number}: {len(fields)} fields, but the header names {len(names)}; "
                f'put a label that holds a {_SEPARATORS[separator]} into "..."'
            )
        yield number, {column: fields[index].strip() for column, index in at.items()}


def _header(where: str, line: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The separator, which is the one that finds most of the wanted columns, and the names of all columns."""
    splits = {separator: [name.strip() for name in _split(where, line, separator)] for separator in _SEPARATORS}
    separator = max(splits, key=lambda s: len(set(columns) & set(splits[s])))
    names = splits[separator]
    for column in columns:
        if column not in names:
            raise ValueError(
                f"{where}: the header {line[:200]!r} has no column {column!r}; the first line must name "
                f"{', '.join(columns)}, separated by {', '.join(_SEPARATORS.values())}"
            )
        if names.count(column) > 1:
            raise ValueError(f"{where}: column {column!r} stands twice in the header; rename one of the two")
    return separator, names


def _split(where: str, line: str, separator: str) -> list[str]:
    # One reader a line: a quote that is never closed must not swallow the rows behind it.
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error as problem:
        raise ValueError(f'{where}: {problem}; close the quotes, and write a quote inside quotes as ""') from None


def _read_table(path: Path) -> dict[str, FileEvents]:
    files: dict[str, FileEvents] = {}
    for number, row in _rows(path, COLUMNS):
        try:
            entry = files.setdefault(_name(row["filename"]), FileEvents())
            empty = [column for column in COLUMNS[1:] if not row[column]]
            if not empty:
                entry.events.append(_event(row["onset"], row["offset"], row["event_label"], _column))
            elif len(empty) < 3:
                raise _Bad(f"{_column(empty[0])} is empty; fill it, or empty all three for a file without events")
        except _Bad as problem:
            raise ValueError(f"{path}:{number}: {problem}") from None
    return files


# ---------------------------------------------------------------- JSON


def _json_list(path: Path) -> list[Any]:
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path}: larger than {_MAX_JSON >> 30} GiB; write it as JSON Lines, one object a line")
    data = _parsed(str(path), _decoded(str(path), path.read_bytes(), first=True))
    if not isinstance(data, list):
        raise ValueError(f"{path}: expected a list of objects, got {type(data).__name__}; put it into [...]")
    return data


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"{where}: not valid JSON: {problem}; correct it") from None


def _collect(items: Iterable[tuple[str, Any]], role: Role) -> dict[str, FileEvents]:
    files: dict[str, FileEvents] = {}
    whole: set[str] = set()  # files that one object gives all events of
    for where, item in items:
        try:
            if not isinstance(item, dict):
                raise _Bad(f"expected an object, got {type(item).__name__}")
            name = _name(item.get("filename", item.get("id")))
            if name in whole or ("events" in item and name in files):
                raise _Bad(f"key 'filename': {name!r} was there already, with all its events; keep one of the two")
            if "events" in item:
                whole.add(name)
                files[name] = _whole_file(item, role)
            else:
                _add_single(files.setdefault(name, FileEvents()), item)
        except _Bad as problem:
            raise ValueError(f"{where}: {problem}") from None
    return files


def _whole_file(item: Mapping[str, Any], role: Role) -> FileEvents:
    duration, samples, ok = item.get("duration"), item.get("samples"), item.get("ok", True)
    if not isinstance(ok, bool):
        raise _Bad(f"key 'ok': expected true or false, got {ok!r}")
    key = "reference" if role == "reference" and "reference" in item else "events"
    return FileEvents(
        _event_list(item[key], key),
        None if duration is None else _duration(duration, _key("")),
        ok or role == "reference",
        None if samples is None else [_event_list(s, f"samples[{i}]") for i, s in enumerate(_list(samples, "samples"))],
    )


def _add_single(entry: FileEvents, item: Mapping[str, Any]) -> None:
    if "onset" not in item:
        raise _Bad("no key 'events' and no key 'onset'; give the file's events, or one event")
    if any(item.get(key) is not None for key in ("onset", "offset", "event_label", "label")):
        entry.events.append(_json_event(item, ""))


def _event_list(data: Any, where: str) -> list[Event]:
    return [_json_event(item, f"{where}[{index}].") for index, item in enumerate(_list(data, where))]


def _json_event(data: Any, where: str) -> Event:
    key = _key(where)
    if not isinstance(data, dict):
        raise _Bad(f"{key('')}: expected an object, got {type(data).__name__}")
    label = data.get("event_label", data.get("label"))
    if not isinstance(label, str):
        raise _Bad(f"{key('event_label')}: expected text, got {label!r}")
    for name in ("onset", "offset"):
        if isinstance(data.get(name), bool) or not isinstance(data.get(name), (int, float)):
            raise _Bad(f"{key(name)}: expected a number of seconds, got {data.get(name)!r}")
    return _event(data["onset"], data["offset"], label, key)


def _list(data: Any, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise _Bad(f"key '{where}': expected a list, got {type(data).__name__}")
    return data


# ---------------------------------------------------------------- values


def _column(name: str) -> str:
    return f"column {name!r}"


def _key(where: str) -> Callable[[str], str]:
    return lambda name: f"key '{(where + name).rstrip('.')}'"


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Bad(f"'filename' is {value!r}; every row and object must name its audio file")
    return value


def _event(onset: Any, offset: Any, label: str, naming: Callable[[str], str]) -> Event:
    start, end = _seconds(onset, naming("onset")), _seconds(offset, naming("offset"))
    if start >= end:
        raise _Bad(f"{naming('offset')}: onset {start} s is not before offset {end} s; correct one of them")
    if any(mark in label for mark in "\t\r\n"):
        raise _Bad(f"{naming('event_label')}: {label!r} holds a tab or a line break; remove it")
    return Event(start, end, label)


def _duration(value: Any, naming: Callable[[str], str]) -> float:
    duration = _seconds(value, naming("duration"))
    if duration == 0:
        raise _Bad(f"{naming('duration')}: a file of 0 s holds nothing to score; correct it")
    return duration


def _seconds(value: Any, where: str) -> float:
    try:
        seconds = float(value)
    except (ValueError, TypeError, OverflowError):
        raise _Bad(f"{where}: {value!r} is not a number of seconds; write it as 1.25") from None
    if not 0 <= seconds < math.inf:
        raise _Bad(f"{where}: {value!r} is not a time; times are finite and at least 0 seconds")
    return seconds
