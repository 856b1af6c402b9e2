"""Label files of one recording, as annotation programs save them; which program it was shows in the content.

    Audacity           1.000000 <tab> 2.000000 <tab> Dog; scaper's .txt and files with blanks for tabs are the same
    Sonic Visualiser   1.000000000,0,1.000000000,Dog: a layer of regions (time, value, duration, label) or notes
    Raven              a selection table: Begin Time (s), End Time (s), one column of labels; several recordings where
                       it has Begin File and File Offset (s)
    Praat              *.TextGrid, one tier of intervals, or a tier a label; those without text are no events
    JAMS               *.jams with one annotation of events (scaper, sound_event, segment_*, tag_*)
    WebVTT             *.vtt, a cue an event: its text is the label

The recording is called as the file is, without its ending: take.txt, take.wav.txt and take.Table.1.selections.txt are
about take. An empty .txt or .csv file is a recording without events. Lines of Audacity that begin with a backslash
hold frequencies and are no events. Points in time come as events without length, which references refuse.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timepro.data.files import text_lines
from timepro.data.formats.json_files import json_object
from timepro.data.table import MAX_LINE, Table, first_line, read_header, split_header, split_row
from timepro.data.textgrid import read_textgrid
from timepro.data.values import NUMBER, BadValue, is_missing, seconds
from timepro.hints import install_extra

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf")
"""Endings of the audio files that are read."""
ENDINGS = (".txt", ".csv", ".tsv", ".textgrid", ".jams", ".vtt")
JAMS_TAGS = "tag_open"
JAMS_NAMESPACES = ("scaper", "sound_event", "segment_open", JAMS_TAGS)

_AUDACITY = re.compile(rf"[ \t]*+({NUMBER})[ \t]++({NUMBER})(?:[ \t]++(.*))?")
_FREQUENCIES = re.compile(r"\\[ \t]")
_SONIC = re.compile(rf"{NUMBER},{NUMBER}(?:,.*)?")
_SONIC_HEADER = ("TIME", "DURATION", "LABEL")
_RAVEN = {"onset": "Begin Time (s)", "offset": "End Time (s)"}
_RAVEN_OWN = {"selection", "view", "channel", "begin file", "end file", "begin path", "end path", "begin date", "id"}
_RAVEN_OWN |= {"confidence", "score"}
_RAVEN_NAME = re.compile(r"(?:\.Table\.[0-9]+)?\.selections$", re.IGNORECASE)
# A label file's recording may be in a format that is not read as a data set.
_NAMED = (*AUDIO, ".m4a", ".aac", ".wma", ".mp4", ".mkv", ".mov", ".webm")


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """An event as it is written.

    recording: its audio file where the label file says it, None for the file's own. confidence: where it says one.
    """

    onset: Any
    offset: Any
    label: Any
    line: int
    recording: str | None = None
    confidence: Any = None


@dataclass(frozen=True)
class Track:
    """What a label file holds. left_out: (kind, line) of what is in the file and no event; duration in seconds."""

    program: str
    events: tuple[TrackEvent, ...]
    duration: float | None = None
    left_out: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class TrackOptions:
    """What to read where a file holds several things: the column of a Raven table's labels, a TextGrid's tier."""

    label: str = ""
    tier: str = ""


def recording_of(path: Path) -> str:
    """The name of the recording that a label file is about."""
    return without_audio_ending(_RAVEN_NAME.sub("", path.stem))


def without_audio_ending(name: str) -> str:
    """A file's name without the ending of an audio file; other points belong to the name."""
    stem, point, ending = name.rpartition(".")
    return stem if f"{point}{ending}".lower() in _NAMED else name


def program_of(path: Path) -> str:
    """The program whose label file this is, by its content; "" for something else, such as a table with a header."""
    suffix = path.suffix.lower()
    if suffix == ".textgrid":
        return "Praat"
    if suffix == ".jams":
        return "JAMS"
    if suffix == ".vtt":
        return "WebVTT"
    if suffix not in ENDINGS:
        return ""
    first = next((line for _, line in text_lines(path, MAX_LINE) if line.strip()), "")
    if not first:
        return "Audacity" if suffix == ".txt" else ""
    if set(_RAVEN.values()) <= set(split_header(first, "\t")):
        return "Raven"
    if _AUDACITY.fullmatch(first) or _FREQUENCIES.match(first):
        return "Audacity"
    if _SONIC.fullmatch(first.strip()) or _sonic_columns(first) is not None:
        return "Sonic Visualiser"
    return ""


def read_track(path: Path, program: str, options: TrackOptions = TrackOptions()) -> Track:  # noqa: B008 (frozen)
    """The events of a label file of this program (`program_of`). Raises ValueError that names file and line."""
    if program == "Raven":
        return _read_raven(path, options.label)
    if program == "Praat":
        intervals, length = read_textgrid(path, options.tier)
        return Track(program, tuple(TrackEvent(*found, line) for line, found in enumerate(intervals, 1)), length)
    if program == "WebVTT":
        return Track(program, tuple(_read_webvtt(path)))
    if program == "JAMS":
        try:
            duration, events = read_jams(json_object(path))
        except ValueError as problem:
            raise ValueError(f"{path}: {problem}") from None
        return Track(program, events, duration)
    read = _read_audacity if program == "Audacity" else _read_sonic
    entries = list(read(path))
    found = tuple(entry for entry in entries if isinstance(entry, TrackEvent))
    return Track(program, found, left_out=tuple(entry for entry in entries if not isinstance(entry, TrackEvent)))


# ---------------------------------------------------------------- lines


def _read_audacity(path: Path) -> Iterator[TrackEvent | tuple[str, int]]:
    for number, line in text_lines(path, MAX_LINE):
        if not line.strip():
            continue
        if _FREQUENCIES.match(line):
            yield "frequency range of a label: not an event", number
            continue
        found = _AUDACITY.fullmatch(line)
        if found is None:
            raise ValueError(f"{path}:{number}: {line[:80]!r} is not a line of a label track: onset, offset, label")
        yield TrackEvent(found[1], found[2], (found[3] or "").strip(), number)


def _read_sonic(path: Path) -> Iterator[TrackEvent | tuple[str, int]]:
    at: tuple[int, int, int] | None = None
    for number, line in text_lines(path, MAX_LINE):
        if not line.strip():
            continue
        try:
            fields = split_row(line, ",")
        except ValueError as problem:
            raise ValueError(f"{path}:{number}: {problem}") from None
        if at is None and (named := _sonic_columns(line)) is not None:
            at = named
            continue
        if at is None and len(fields) < 4:
            raise ValueError(
                f"{path}:{number}: {len(fields)} fields without a header are points in time, or of unknown meaning; "
                "export a layer of regions (time, value, duration, label), or write a header line"
            )
        at = at or (0, 2, len(fields) - 1)
        time, length, label = at
        if len(fields) <= max(time, length, label):
            raise ValueError(f"{path}:{number}: {len(fields)} fields, fewer than the lines above; correct the line")
        try:
            onset, duration = seconds(fields[time]), seconds(fields[length])
        except BadValue as problem:
            raise ValueError(f"{path}:{number}: {problem}") from None
        yield TrackEvent(onset, round(onset + duration, 9), fields[label], number)


def _sonic_columns(line: str) -> tuple[int, int, int] | None:
    """Where time, duration and label stand, by a header that newer versions write."""
    names = [name.upper() for name in line.replace('"', "").strip().split(",")]
    if not set(_SONIC_HEADER) <= set(names):
        return None
    time, length, label = (names.index(name) for name in _SONIC_HEADER)
    return time, length, label


# ---------------------------------------------------------------- Raven


def _read_raven(path: Path, label: str) -> Track:
    number, header = first_line(path)
    _, names = read_header(f"{path}:{number}", header, _RAVEN)
    columns = _RAVEN | {"label": label or _raven_label(f"{path}:{number}", names)}
    columns |= {"selection": "Selection", "file": "Begin File", "at": "File Offset (s)", "confidence": "Confidence"}
    table = Table(path, columns, ("selection", "file", "at", "confidence"))
    events, seen, left_out = [], set(), []
    for row in table.rows():
        if row.problem:
            raise ValueError(f"{path}:{row.line}: {row.problem}")
        # Tables of several recordings, put together, number the selections of each from 1.
        selection = row.cells.get("selection") or str(row.line), row.cells.get("file")
        if selection in seen:  # a selection has a row for each view, waveform and spectrogram
            left_out.append(("row of a further view of a selection: the same event", row.line))
            continue
        seen.add(selection)
        events.append(_raven_event(path, row.line, row.cells))
    files = {event.recording for event in events}
    if len(files) > 1 and not table.has("at"):
        raise ValueError(
            f"{path}: times count through {len(files)} recordings; export the table with the column 'File Offset (s)'"
        )
    return Track("Raven", tuple(events), left_out=tuple(left_out))


def _raven_event(path: Path, line: int, cells: dict[str, str]) -> TrackEvent:
    recording = None if is_missing(cells.get("file")) else Path(cells["file"].replace("\\", "/")).name
    onset, offset, confidence = cells["onset"], cells["offset"], cells.get("confidence")
    if recording and not is_missing(cells.get("at")):
        try:
            begin, end, at = seconds(onset), seconds(offset), seconds(cells["at"])
        except BadValue as problem:
            raise ValueError(f"{path}:{line}: {problem}") from None
        return TrackEvent(at, round(at + end - begin, 9), cells["label"], line, recording, confidence)
    return TrackEvent(onset, offset, cells["label"], line, recording, confidence)


def _raven_label(where: str, names: Sequence[str]) -> str:
    """The one column that is neither a measurement, which has its unit in brackets, nor Raven's own."""
    found = [name for name in names if name and "(" not in name and name.lower() not in _RAVEN_OWN]
    if len(found) != 1:
        which = f"one of {', '.join(found)}" if found else "none; add a column of annotations in Raven"
        raise ValueError(f"{where}: which column holds the labels? --columns event_label=NAME, {which}")
    return found[0]


# ---------------------------------------------------------------- WebVTT, JAMS


def _read_webvtt(path: Path) -> Iterator[TrackEvent]:
    try:
        import webvtt
        from webvtt.errors import MalformedCaptionError, MalformedFileError
    except ImportError:
        raise ValueError(
            f"{path}: WebVTT is read by the package webvtt-py; install it: {install_extra('detect')}"
        ) from None
    try:
        captions = webvtt.read(str(path), encoding="utf-8-sig").captions
    except (MalformedFileError, MalformedCaptionError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path}: this is not a WebVTT file that can be read ({problem}); correct it") from None
    for number, caption in enumerate(captions, 1):
        onset, offset = (_of_clock(clock) for clock in (caption.start, caption.end))
        yield TrackEvent(onset, offset, html.unescape(caption.text), number)


def _of_clock(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return round(int(hours) * 3600 + int(minutes) * 60 + float(rest), 3)


def read_jams(jams: Any) -> tuple[float | None, tuple[TrackEvent, ...]]:
    """Stated duration in seconds, and the events; ``line`` is the number of the observation.

    Raises ValueError, without the path, for JSON that is no such JAMS.
    """
    annotations = jams.get("annotations") if isinstance(jams, dict) else None
    if not isinstance(annotations, list):
        raise ValueError("no list 'annotations'; is this a JAMS file?")
    known = [a for a in annotations if isinstance(a, dict) and a.get("namespace") in JAMS_NAMESPACES]
    if len(known) != 1:
        raise ValueError(f"{len(known)} annotations with namespace {' or '.join(JAMS_NAMESPACES)}; expected one")
    observations = known[0].get("data")
    if not isinstance(observations, list):
        raise ValueError("its annotation has no list 'data'")
    events = []
    for number, item in enumerate(observations, 1):
        value = item.get("value") if isinstance(item, dict) else None
        if isinstance(value, dict) and value.get("role") in ("foreground", "background"):
            if value["role"] == "background":
                continue
            value = value.get("label")
        elif known[0]["namespace"] in ("scaper", "sound_event") or not isinstance(value, str):
            raise ValueError(f"observation {number} has no value with role foreground or background")
        events.append(TrackEvent(item.get("time"), _end(item), value, number, confidence=item.get("confidence")))
    metadata = jams.get("file_metadata")
    duration = metadata.get("duration") if isinstance(metadata, dict) else None
    is_number = isinstance(duration, (int, float)) and not isinstance(duration, bool)
    return (duration if is_number else None), tuple(events)


def _end(observation: dict[str, Any]) -> Any:
    onset: Any = observation.get("time")
    length: Any = observation.get("duration")
    try:
        return round(onset + length, 6)  # the sum of two decimals need not be one
    except (TypeError, ValueError, OverflowError):
        return length
