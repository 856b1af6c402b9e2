"""Reading and writing manifests: JSON Lines, one clip a line.

    {"id": "a", "audio": "audio/a.flac", "duration": 7.36, "split": "train", "tasks": ["sed", "ag"],
     "events": [{"onset": 0.52, "offset": 1.2, "label": "glass_breaking", "caption": "a pane of glass shatters",
                 "annotated_onset": 0.76, "annotated_offset": 1.44}],
     "queries": [{"text": "glass breaking", "intervals": [[0.52, 1.2]], "annotated_intervals": [[0.76, 1.44]]}]}

``split``, ``tasks`` (those that the clip serves; without the key, all), ``caption``, ``annotated_*`` and ``queries``
are optional, audio paths are relative to the manifest's folder.
Everything a later stage trusts is checked here, once, so that a bad line is an error with a file name and a line number
and not a strange score three stages later. Times are float seconds, intervals are ``[onset, offset)``. A byte order
mark, CRLF line ends and blank lines are accepted.
"""

from __future__ import annotations

import difflib
import gc
import json
import os
import re
import reprlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from timepro.data.clips import Clip, Interval, ManifestEvent, Query
from timepro.data.files import bounded_lines, file_problem
from timepro.system.files import replacing
from timepro.tasks.registry import find_task, spec_of

DURATION_TOLERANCE = 1e-3
"""Seconds by which an event may exceed its clip: durations are often rounded to milliseconds."""

MAX_LINE = 16 << 20
"""Bytes of the longest line that is read: more is not a clip but a broken file."""

CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
"""Tabs, line breaks and the like, and halves of characters: in a label they would break the tables it goes into."""


class _Bad(Exception):
    """A problem inside one line; `read_manifest` adds the file and the line number."""


_Keys = tuple[frozenset[str], frozenset[str]]  # required, and all that are allowed


def _allow(required: set[str], optional: set[str]) -> _Keys:
    return frozenset(required), frozenset(required | optional)


_CLIP_KEYS = _allow({"id", "audio", "duration", "events"}, {"queries", "split", "tasks"})
_EVENT_KEYS = _allow({"onset", "offset", "label"}, {"caption", "annotated_onset", "annotated_offset"})
_QUERY_KEYS = _allow({"text", "intervals"}, {"annotated_intervals"})


def read_manifest(path: str | os.PathLike[str], check_audio: bool = True) -> list[Clip]:
    """Read and check a manifest as `iter_manifest` does, all at once."""
    # Clips hold no cycles, and the collector would walk the growing list again and again: a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return list(iter_manifest(path, check_audio))
    finally:
        if collecting:
            gc.enable()


def iter_manifest(path: str | os.PathLike[str], check_audio: bool = True) -> Iterator[Clip]:
    """Read and check a manifest clip by clip.

    ``check_audio`` also asks the file system, once a clip and without decoding, whether the audio file exists and is
    not empty. Raises FileNotFoundError where the manifest is missing, else ValueError that names file, line and key.
    """
    for _, clip in numbered_clips(path, check_audio):
        yield clip


def numbered_clips(path: str | os.PathLike[str], check_audio: bool = True) -> Iterator[tuple[int, Clip]]:
    """`iter_manifest` with the number of each clip's line."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a manifest" if path.is_dir() else "no such manifest"
        raise FileNotFoundError(f"{path}: {what}; check the path, or make the data first")
    folder = os.path.abspath(path.parent)
    line_of: dict[str, int] = {}
    for number, raw in bounded_lines(path, MAX_LINE):
        if raw is not None and not raw.strip():
            continue
        try:
            clip = _clip(_parse(raw), folder, check_audio)
            if clip.id in line_of:
                raise _Bad(
                    f"key 'id': {clip.id!r} is already used on line {line_of[clip.id]}; give each clip its own id"
                )
        except _Bad as problem:
            raise ValueError(f"{path}:{number}: {problem}") from None
        line_of[clip.id] = number
        yield number, clip
    if not line_of:
        raise ValueError(f"{path}:1: the manifest holds no clips; write one JSON object a line")


def write_manifest(path: str | os.PathLike[str], clips: Iterable[Clip]) -> None:
    """Write a manifest in one step: readers see the old file or the whole new one.

    Audio paths become relative to the manifest's folder. Raises ValueError for a time that is not finite.
    """
    folder = os.path.abspath(Path(path).parent)
    with replacing(path) as out:
        for clip in clips:
            out.write(manifest_line(clip, folder))


def manifest_line(clip: Clip, folder: str) -> str:
    """A clip's line, for a manifest in ``folder`` (absolute). Raises ValueError for a time that is not finite."""
    return json.dumps(_as_json(clip, folder), ensure_ascii=False, allow_nan=False) + "\n"


def _as_json(clip: Clip, folder: str) -> dict[str, Any]:
    events = []
    for e in clip.events:
        item: dict[str, Any] = {"onset": e.onset, "offset": e.offset, "label": e.label}
        optional = {"caption": e.caption, "annotated_onset": e.annotated_onset, "annotated_offset": e.annotated_offset}
        events.append(item | {key: value for key, value in optional.items() if value is not None})
    queries = []
    for q in clip.queries:
        item = {"text": q.text, "intervals": q.intervals}
        queries.append(item if q.annotated_intervals is None else item | {"annotated_intervals": q.annotated_intervals})
    audio = Path(os.path.relpath(clip.audio, folder)).as_posix()
    data = {"id": clip.id, "audio": audio, "duration": clip.duration, "events": events, "queries": queries}
    about = {"split": clip.split, "tasks": clip.tasks and [spec_of(task) for task in clip.tasks]}
    return data | {key: value for key, value in about.items() if value is not None}


def _parse(raw: bytes | None) -> Any:
    if raw is None:
        raise _Bad(f"the line is longer than {MAX_LINE:,} bytes; write one JSON object a line")
    try:
        return json.loads(raw.decode())
    except UnicodeDecodeError as problem:
        raise _Bad(f"not UTF-8 text ({problem.reason} at byte {problem.start}); save the manifest as UTF-8") from None
    except (ValueError, RecursionError) as problem:
        raise _Bad(f"not valid JSON: {problem}; write one JSON object a line") from None


def _clip(data: Any, folder: str, check_audio: bool) -> Clip:
    _keys(data, _CLIP_KEYS)
    name = _text(data, "id")
    audio = os.path.normpath(os.path.join(folder, _text(data, "audio")))
    duration = _number(data["duration"], "duration")
    if duration == 0:
        raise _Bad("key 'duration': must be above 0 seconds")
    if check_audio and (wrong := file_problem(audio)):
        raise _Bad(f"key 'audio': {audio} {wrong}; paths are relative to the manifest's folder")
    split = _text(data, "split") if data.get("split") is not None else None
    events = _list(data["events"], "events")
    queries = _list(data.get("queries", []), "queries")
    return Clip(
        name,
        Path(audio),
        duration,
        tuple([_event(item, duration, "events", i) for i, item in enumerate(events)]),
        tuple([_query(item, duration, "queries", i) for i, item in enumerate(queries)]),
        split,
        _tasks(data["tasks"]) if data.get("tasks") is not None else None,
    )


# ---------------------------------------------------------------- parts of a line
# The last arguments say where a value stands; the key is spelt out only for an error, which is most of the speed.


def _event(data: Any, duration: float, *where: str | int) -> ManifestEvent:
    _keys(data, _EVENT_KEYS, *where)
    onset, offset = _span(data["onset"], data["offset"], duration, where, "onset", "offset")
    label = _text(data, "label", *where)
    caption = _text(data, "caption", *where) if data.get("caption") is not None else None
    start, end = data.get("annotated_onset"), data.get("annotated_offset")
    if (start is None) != (end is None):
        missing = "annotated_onset" if start is None else "annotated_offset"
        raise _Bad(f"missing key {_key(*where, missing)}; give both annotated times or neither")
    if start is not None:
        start, end = _span(start, end, duration, where, "annotated_onset", "annotated_offset")
    return ManifestEvent(onset, offset, label, caption, start, end)


def _query(data: Any, duration: float, *where: str | int) -> Query:
    _keys(data, _QUERY_KEYS, *where)
    annotated = data.get("annotated_intervals")
    return Query(
        _text(data, "text", *where),
        _intervals(data["intervals"], duration, *where, "intervals"),
        None if annotated is None else _intervals(annotated, duration, *where, "annotated_intervals"),
    )


def _tasks(data: Any) -> tuple[str, ...]:
    names = _list(data, "tasks")
    if not names:
        raise _Bad("key 'tasks': names no task; leave the key out where the clip serves all")
    found = []
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise _Bad(f"key {_key('tasks', i)}: expected a task's name, got {shown(name)}")
        try:
            found.append(find_task(name, f"key {_key('tasks', i)}").name)
        except ValueError as problem:
            raise _Bad(str(problem)) from None
    return tuple(found)


def _intervals(data: Any, duration: float, *where: str | int) -> tuple[Interval, ...]:
    found = []
    for i, pair in enumerate(_list(data, *where)):
        if not isinstance(pair, list) or len(pair) != 2:
            raise _Bad(f"key {_key(*where, i)}: expected [onset, offset], got {shown(pair)}")
        found.append(_span(pair[0], pair[1], duration, (*where, i), 0, 1))
    return tuple(found)


def _span(
    onset: Any, offset: Any, duration: float, where: tuple[str | int, ...], first: str | int, second: str | int
) -> Interval:
    # Nearly every interval is a pair of good floats; NaN fails here too.
    if type(onset) is type(offset) is float and 0 <= onset < offset <= duration + DURATION_TOLERANCE:
        return onset, offset
    start, end = _number(onset, *where, first), _number(offset, *where, second)
    if start >= end:
        raise _Bad(f"key {_key(*where, second)}: onset {start} s is not before offset {end} s; correct one of them")
    if end > duration + DURATION_TOLERANCE:
        raise _Bad(
            f"key {_key(*where, second)}: {end} s lies beyond the clip's duration of {duration} s; correct one of them"
        )
    return start, end


def _number(value: Any, *where: str | int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Bad(f"key {_key(*where)}: expected a number of seconds, got {shown(value)}")
    if not 0 <= value <= sys.float_info.max:  # False for NaN, too
        raise _Bad(f"key {_key(*where)}: {shown(value)} is not a time; times are finite and at least 0 seconds")
    return float(value)


def _text(data: dict[str, Any], key: str, *where: str | int) -> str:
    value = data[key]
    if not isinstance(value, str) or not value.strip():
        raise _Bad(f"key {_key(*where, key)}: expected text that is not empty, got {shown(value)}")
    if not value.isprintable() and CONTROL.search(value):
        raise _Bad(f"key {_key(*where, key)}: {shown(value)} holds a tab, a line break or the like; replace it")
    return value


def _list(value: Any, *where: str | int) -> list[Any]:
    if not isinstance(value, list):
        raise _Bad(f"key {_key(*where)}: expected a list, got {type(value).__name__}")
    return value


def _keys(data: Any, allowed: _Keys, *where: str | int) -> None:
    required, known = allowed
    if not isinstance(data, dict):
        raise _Bad(f"{f'key {_key(*where)}' if where else 'the line'}: expected a JSON object, got {shown(data)}")
    if required <= data.keys() <= known:
        return
    # Unknown before missing: a misspelt key is both, and the near names say more than "missing".
    for key in data.keys() - known:
        near = difflib.get_close_matches(key[:100], known, n=3) or sorted(known)
        raise _Bad(
            f"unknown key {_key(*where, key[:100])}; did you mean {' or '.join(repr(k) for k in near)}? "
            "Rename or remove it"
        )
    missing = ", ".join(_key(*where, key) for key in sorted(required - data.keys()))
    raise _Bad(f"missing key {missing}; add it to the line")


def _key(*parts: str | int) -> str:
    """'events[0].onset' from "events", 0, "onset"."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"'{text.removeprefix('.')}'"


def shown(value: Any) -> str:
    """A value in an error message: as Python writes it, shortened."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
