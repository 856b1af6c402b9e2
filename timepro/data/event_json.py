"""Events in JSON: a list of objects, or one object a line.

An object is a file with its events,

    {"filename": "a.wav", "events": [{"onset": 0.5, "offset": 1.2, "event_label": "Dog"}], "duration": 10.0}

or a single event, ``{"filename": "a.wav", "onset": 0.5, "offset": 1.2, "event_label": "Dog"}``, where a file without
events has null or NaN for all three. ``id`` may stand for ``filename`` and ``label`` for ``event_label``, so a manifest
can be read, and so can the answers of a run (``eval/*.jsonl``): as predictions their ``events``, as references their
``reference``. ``samples``, a list of lists of events, holds several answers to the same clip, and an event may have a
``confidence`` of 0 to 1. Other keys are not looked at. A list may also be an export of Label Studio
(`timepro.data.label_studio`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from timepro.data.event_parts import ODD_LABEL, Bad, EventMaker, FileEvents, duration_of, key, name_of
from timepro.data.files import text_lines
from timepro.data.label_studio import Task, is_task, read_task
from timepro.data.manifest import CONTROL
from timepro.data.table import NAN_ROW
from timepro.data.values import is_missing
from timepro.events import Event

_MAX_LINE = 64 * 2**20  # bytes; a longer line is not a file with its events
_MAX_JSON = 2**30  # bytes; a larger list would not fit into memory beside its events


def read_json(path: Path, make: EventMaker) -> dict[str, FileEvents]:
    """File name -> events, of a ``.json`` or ``.jsonl`` file; problems are noted by file, line and key.

    Raises ValueError for what is no JSON, or no list.
    """
    files: dict[str, FileEvents] = {}
    whole: set[str] = set()  # files that one object gives all events of
    for place, item in _lines(path) if path.suffix.lower() == ".jsonl" else _items(path):
        try:
            if not isinstance(item, dict):
                raise Bad(f"expected an object, got {type(item).__name__}")
            task = read_task(item) if is_task(item) else None
            name = name_of(item.get("filename", item.get("id")) if task is None else task.name)
            if name in whole or ("events" in item and name in files):
                raise Bad(f"key 'filename': {name!r} was there already, with all its events; keep one of the two")
            if task is not None:
                whole.add(name)
                files[name] = _from_task(task, make, place)
            elif "events" in item:
                whole.add(name)
                files[name] = _whole_file(item, make, place)
            else:
                _add_single(files.setdefault(name, FileEvents()), item, make, place)
        except Bad as problem:
            make.problems.add(place, problem)
    return files


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in text_lines(path, _MAX_LINE):
        if line.strip():
            yield f"{path}:{number}", _parsed(f"{path}:{number}", line)


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path}: larger than {_MAX_JSON >> 30} GiB; write it as JSON Lines, one object a line")
    try:
        data = _parsed(str(path), path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path}: not UTF-8 text ({problem.reason}); save it as UTF-8") from None
    if not isinstance(data, list):
        raise ValueError(f"{path}: expected a list of objects, got {type(data).__name__}; put it into [...]")
    for index, item in enumerate(data):
        yield f"{path}: item {index}", item


def _parsed(where: str, content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"{where}: not valid JSON: {problem}; correct it") from None


def _whole_file(item: Mapping[str, Any], make: EventMaker, place: str) -> FileEvents:
    duration, samples, ok = item.get("duration"), item.get("samples"), item.get("ok", True)
    if not isinstance(ok, bool):
        raise Bad(f"key 'ok': expected true or false, got {ok!r}")
    name = "reference" if make.role == "reference" and "reference" in item else "events"
    entry = FileEvents(
        duration=None if is_missing(duration) else duration_of(duration, key("")),
        ok=ok or make.role == "reference",
        samples=None
        if samples is None
        else [_events(s, f"samples[{i}]", make, place) for i, s in enumerate(_list(samples, "samples"))],
    )
    events = _list(item[name], name)
    for event, made in zip(events, _events(events, name, make, place), strict=True):
        entry.add(made, make.confidence(event.get("confidence"), place))
    return entry


def _from_task(task: Task, make: EventMaker, place: str) -> FileEvents:
    entry = FileEvents(duration=task.duration)
    for region in task.regions:
        made = make(region.onset, region.offset, region.label, lambda name, r=region: f"{r.place}: {name}", place)  # type: ignore[misc]
        entry.add(made, make.confidence(region.confidence, place))
    return entry


def _add_single(entry: FileEvents, item: Mapping[str, Any], make: EventMaker, place: str) -> None:
    if "onset" not in item:
        raise Bad("no key 'events' and no key 'onset'; give the file's events, or one event")
    values = [item["onset"], item.get("offset"), item.get("event_label", item.get("label"))]
    if not all(map(is_missing, values)):
        entry.add(_event(item, "", make, place), make.confidence(item.get("confidence"), place))
    elif any(value is not None for value in values):
        make.repairs.add(NAN_ROW, place)


def _events(data: Any, where: str, make: EventMaker, place: str) -> list[Event]:
    return [_event(item, f"{where}[{index}].", make, place) for index, item in enumerate(_list(data, where))]


def _event(data: Any, where: str, make: EventMaker, place: str) -> Event:
    naming = key(where)
    if not isinstance(data, dict):
        raise Bad(f"{naming('')}: expected an object, got {type(data).__name__}")
    label = data.get("event_label", data.get("label"))
    if not isinstance(label, str):
        raise Bad(f"{naming('event_label')}: expected text, got {label!r}")
    for name in ("onset", "offset"):
        if isinstance(data.get(name), bool) or not isinstance(data.get(name), (int, float)):
            raise Bad(f"{naming(name)}: expected a number of seconds, got {data.get(name)!r}")
    if make.role == "reference" or (label.strip() and not CONTROL.search(label.strip())):
        return make(data["onset"], data["offset"], label, naming, place)
    make.repairs.add(ODD_LABEL, place)
    return replace(make(data["onset"], data["offset"], "-", naming, place), label=label.strip())


def _list(data: Any, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise Bad(f"key '{where}': expected a list, got {type(data).__name__}")
    return data
