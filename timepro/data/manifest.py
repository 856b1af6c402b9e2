"""Reading and writing manifests: JSON Lines, one clip a line.

Everything a later stage trusts is checked here, once, so that a bad line is an error with a file name and a line number
and not a strange score three stages later. Times are float seconds, intervals are ``[onset, offset)``.
"""

from __future__ import annotations

import difflib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from timepro.events import Event

DURATION_TOLERANCE = 1e-3
"""Seconds by which an event may exceed its clip: durations are often rounded to milliseconds."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ManifestEvent:
    """One sound event. ``annotated_*`` are the times of a human-like annotator (late, jittered); None where unknown."""

    onset: float
    offset: float
    label: str
    caption: str | None = None
    annotated_onset: float | None = None
    annotated_offset: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A grounding query and every interval it refers to; no interval means that the clip does not contain it."""

    text: str
    intervals: tuple[Interval, ...]
    annotated_intervals: tuple[Interval, ...] | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """One manifest line. ``audio`` is absolute, ``duration`` in seconds."""

    id: str
    audio: Path
    duration: float
    events: tuple[ManifestEvent, ...]
    queries: tuple[Query, ...] = ()

    def labelled(self, times: Literal["exact", "annotated"]) -> list[Event]:
        """The clip's events in time order, with exact or annotated times.

        Raises ValueError for an unknown ``times`` and where annotated times are asked for but absent.
        """
        from timepro.events import Event

        if times == "exact":
            return sorted(Event(e.onset, e.offset, e.label) for e in self.events)
        if times != "annotated":
            raise ValueError(f"times must be 'exact' or 'annotated', not {times!r}")
        found = []
        for index, e in enumerate(self.events):
            if e.annotated_onset is None or e.annotated_offset is None:
                raise ValueError(
                    f"clip {self.id!r}: events[{index}] ({e.label!r}) has no annotated times; "
                    "use times='exact', or add 'annotated_onset' and 'annotated_offset' to its manifest line"
                )
            found.append(Event(e.annotated_onset, e.annotated_offset, e.label))
        return sorted(found)


class _Bad(Exception):
    """A problem inside one line; `read_manifest` adds the file and the line number."""


_CLIP_KEYS = ({"id", "audio", "duration", "events"}, {"queries"})
_EVENT_KEYS = ({"onset", "offset", "label"}, {"caption", "annotated_onset", "annotated_offset"})
_QUERY_KEYS = ({"text", "intervals"}, {"annotated_intervals"})


def read_manifest(path: str | os.PathLike[str], check_audio: bool = True) -> list[Clip]:
    """Read and check a manifest; blank lines are allowed.

    ``check_audio`` also asks the file system (no decoding) whether every audio file exists and is not empty.
    Raises FileNotFoundError where the manifest is missing, else ValueError that names file, line and key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest; check the path, or make the data first")
    folder = os.path.abspath(path.parent)
    clips: list[Clip] = []
    line_of: dict[str, int] = {}
    with open(path, "rb") as lines:
        for number, raw in enumerate(lines, 1):
            if not raw.strip():
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
            clips.append(clip)
    if not clips:
        raise ValueError(f"{path}:1: the manifest holds no clips; write one JSON object a line")
    return clips


def write_manifest(path: str | os.PathLike[str], clips: Iterable[Clip]) -> None:
    """Write a manifest in one step: readers see the old file or the whole new one.

    Audio paths become relative to the manifest's folder. Raises ValueError for a time that is not finite.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            for clip in clips:
                out.write(json.dumps(_as_json(clip, folder), ensure_ascii=False, allow_nan=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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
    return {"id": clip.id, "audio": audio, "duration": clip.duration, "events": events, "queries": queries}


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except UnicodeDecodeError as problem:
        raise _Bad(f"not UTF-8 text ({problem.reason} at byte {problem.start}); save the manifest as UTF-8") from None
    except (ValueError, RecursionError) as problem:
        raise _Bad(f"not valid JSON: {problem}; write one JSON object a line") from None


def _clip(data: Any, folder: str, check_audio: bool) -> Clip:
    _keys(data, _CLIP_KEYS, "")
    name = _text(data, "id", "")
    audio = os.path.normpath(os.path.join(folder, _text(data, "audio", "")))
    duration = _number(data["duration"], "duration")
    if duration == 0:
        raise _Bad("key 'duration': must be above 0 seconds")
    if check_audio:
        _check_file(audio)
    events = tuple(_event(item, f"events[{i}]", duration) for i, item in enumerate(_list(data["events"], "events")))
    queries = tuple(
        _query(q, f"queries[{i}]", duration) for i, q in enumerate(_list(data.get("queries", []), "queries"))
    )
    return Clip(name, Path(audio), duration, events, queries)


def _event(data: Any, where: str, duration: float) -> ManifestEvent:
    _keys(data, _EVENT_KEYS, where)
    onset, offset = _span(data["onset"], data["offset"], f"{where}.onset", f"{where}.offset", duration)
    label = _text(data, "label", where)
    caption = _text(data, "caption", where) if data.get("caption") is not None else None
    start, end = data.get("annotated_onset"), data.get("annotated_offset")
    if (start is None) != (end is None):
        missing = "annotated_onset" if start is None else "annotated_offset"
        raise _Bad(f"missing key '{where}.{missing}'; give both annotated times or neither")
    if start is not None:
        start, end = _span(start, end, f"{where}.annotated_onset", f"{where}.annotated_offset", duration)
    return ManifestEvent(onset, offset, label, caption, start, end)


def _query(data: Any, where: str, duration: float) -> Query:
    _keys(data, _QUERY_KEYS, where)
    annotated = data.get("annotated_intervals")
    return Query(
        _text(data, "text", where),
        _intervals(data["intervals"], f"{where}.intervals", duration),
        None if annotated is None else _intervals(annotated, f"{where}.annotated_intervals", duration),
    )


def _intervals(data: Any, where: str, duration: float) -> tuple[Interval, ...]:
    found = []
    for i, pair in enumerate(_list(data, where)):
        if not isinstance(pair, list) or len(pair) != 2:
            raise _Bad(f"key '{where}[{i}]': expected [onset, offset], got {pair!r}")
        found.append(_span(pair[0], pair[1], f"{where}[{i}][0]", f"{where}[{i}][1]", duration))
    return tuple(found)


def _span(onset: Any, offset: Any, onset_key: str, offset_key: str, duration: float) -> Interval:
    start, end = _number(onset, onset_key), _number(offset, offset_key)
    if start >= end:
        raise _Bad(f"key '{offset_key}': onset {start} s is not before offset {end} s; correct one of them")
    if end > duration + DURATION_TOLERANCE:
        raise _Bad(f"key '{offset_key}': {end} s lies beyond the clip's duration of {duration} s; correct one of them")
    return start, end


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Bad(f"key '{key}': expected a number of seconds, got {value!r}")
    if not 0 <= value <= sys.float_info.max:  # False for NaN, too
        raise _Bad(f"key '{key}': {value} is not a time; times are finite and at least 0 seconds")
    return float(value)


def _text(data: dict[str, Any], key: str, where: str) -> str:
    value = data[key]
    if not isinstance(value, str) or not value.strip():
        raise _Bad(f"key '{where + '.' if where else ''}{key}': expected text that is not empty, got {value!r}")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Bad(f"key '{key}': expected a list, got {type(value).__name__}")
    return value


def _keys(data: Any, allowed: tuple[set[str], set[str]], where: str) -> None:
    required, optional = allowed
    if not isinstance(data, dict):
        raise _Bad(f"{f'key {where!r}' if where else 'the line'}: expected a JSON object, got {type(data).__name__}")
    prefix = f"{where}." if where else ""
    # Unknown before missing: a misspelt key is both, and the near names say more than "missing".
    for key in data.keys() - required - optional:
        known = sorted(required | optional)
        near = difflib.get_close_matches(key, known, n=3) or known
        raise _Bad(
            f"unknown key '{prefix}{key}'; did you mean {' or '.join(repr(k) for k in near)}? Rename or remove it"
        )
    missing = sorted(required - data.keys())
    if missing:
        raise _Bad(f"missing key {', '.join(repr(prefix + key) for key in missing)}; add it to the line")


def _check_file(audio: str) -> None:
    try:
        status = os.stat(audio)
    except OSError as problem:
        raise _Bad(f"key 'audio': {audio}: {problem.strerror}; paths are relative to the manifest's folder") from None
    if not stat.S_ISREG(status.st_mode):
        raise _Bad(f"key 'audio': {audio} is not a file; paths are relative to the manifest's folder")
    if status.st_size == 0:
        raise _Bad(f"key 'audio': {audio} is an empty file; restore it or remove the line")
