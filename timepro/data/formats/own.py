"""Labels and audio of your own.

    LABELS   a table (.tsv, .csv) with the columns filename onset offset event_label, perhaps caption, in any order; or
             label files of Audacity, Sonic Visualiser, Raven, Praat (TextGrid), JAMS or WebVTT: one, or a folder of
             them; or events in JSON (.json, .jsonl), as `timepro evaluate` reads them, and exports of Label Studio
    --audio  the folder of the audio, at any depth below it

A row's file is found by the path it states below the folder, with or without the ending, else by its name alone; the
label file of take.wav is called take.txt, take.wav.txt or the like. A row with the file's name alone, or nothing (or
nan) for onset, offset and label, is a clip without events, and so is an empty label file. Audio that LABELS does not
name is left out and counted, unless --unlisted takes it as clips without events. A point in time has no length and is a
problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from timepro.data.event_files import ReadOptions, label_files, program_in_folder
from timepro.data.event_json import read_json
from timepro.data.event_parts import EventMaker
from timepro.data.formats.base import Layout, Problem, RawClip, RawEvent
from timepro.data.formats.tables import EventTable
from timepro.data.joining import basename
from timepro.data.repairs import Repairs, counted
from timepro.data.table import CAPTION, COLUMNS
from timepro.data.tracks import AUDIO, TrackEvent, program_of, read_track, recording_of, without_audio_ending

UNLISTED = ("leave-out", "empty")
_TABLES = (".tsv", ".csv", ".txt")
_JSON = (".json", ".jsonl")


def find(labels: Path, audio: Path, options: ReadOptions, split: str = "", unlisted: str = "leave-out") -> Layout:
    """The clips of a table or of label files.

    Args:
        split: what each clip's line says of it; "" for nothing.
        unlisted: what becomes of audio without labels, one of `UNLISTED`.

    Raises:
        FileNotFoundError, ValueError: a path that is not there, a table without the columns, no audio.
    """
    if not labels.exists():
        raise FileNotFoundError(f"{labels}: no such file or folder of labels")
    if not audio.is_dir():
        raise FileNotFoundError(f"{audio}: no such folder; --audio is the folder that holds the audio files")
    files = _AudioFiles(audio)
    source: _Table | _Tracks | _Json
    if labels.is_file() and labels.suffix.lower() in _JSON:
        source = _Json(split, files, labels)
    elif labels.is_file() and not program_of(labels):
        if labels.suffix.lower() not in _TABLES:
            raise ValueError(
                f"{labels}: {labels.suffix or 'no ending'!r} is not the ending of a table ({', '.join(_TABLES)}), of "
                f"events in JSON ({', '.join(_JSON)}) or of a label file"
            )
        columns = options.columns or {name: name for name in (*COLUMNS, CAPTION)}
        source = _Table(split, files, EventTable(labels, labels.name, columns))
    else:
        source = _Tracks(split, files, labels, options)
    lost = files.without(source.recordings())
    if unlisted == "empty":
        return Layout([source, _Silent(split, files, tuple(lost))], [])
    what = f"not named in {labels}: left out; --unlisted empty takes such files as clips without events"
    return Layout([source], [(f"{counted(len(lost), f'file of {audio}')}, the first {lost[0]}", what)] if lost else [])


class _AudioFiles:
    """The audio files below a folder, by path and by name. Raises ValueError for a folder without any."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO and p.is_file())
        self.paths = [path.relative_to(folder).as_posix() for path in paths]
        if not paths:
            raise ValueError(f"{folder}: no audio files in it ({', '.join(AUDIO)}); --audio is the folder with them")
        self._whole = set(self.paths)
        self._stems: dict[str, list[str]] = {}
        self._names: dict[str, list[str]] = {}
        for path in self.paths:
            self._stems.setdefault(without_audio_ending(path), []).append(path)
            self._names.setdefault(basename(path), []).append(path)

    def of(self, name: str) -> list[str]:
        """The paths below the folder that a stated name can mean; more than one where it is ambiguous."""
        path = name.replace("\\", "/").removeprefix("./")
        if path in self._whole:
            return [path]
        return self._stems.get(without_audio_ending(path)) or self._names.get(basename(path), [])

    def without(self, names: list[str]) -> list[str]:
        """The paths that none of the names means."""
        named = {path for name in names for path in self.of(name)}
        return [path for path in self.paths if path not in named]

    def located(self, clip: RawClip) -> RawClip:
        """A clip with its audio's place, which is looked for by the clip's name."""
        found = self.of(clip.name)
        folder, problems = str(self.folder), clip.problems
        if len(found) > 1:
            which = f"{clip.name!r} can be {' or '.join(found[:3])}; state the path below {folder}"
            problems = (*problems, Problem(clip.file, clip.line, clip.name, "ambiguous", which))
        return replace(clip, folders=(folder,), base=folder, names=tuple(found[:1]) or (clip.name,), problems=problems)


@dataclass(frozen=True)
class _Table:
    split: str
    files: _AudioFiles
    table: EventTable

    def recordings(self) -> list[str]:
        return list(self.table.names())

    def count(self) -> int:
        return self.table.count()

    def clips(self) -> Iterator[RawClip | Problem]:
        for rows in self.table.clips():
            if isinstance(rows, Problem):
                yield rows
            else:
                clip = RawClip(
                    rows.name, self.split, self.table.file, rows.line,
                    events=rows.events, problems=rows.problems, repairs=rows.repairs,
                )  # fmt: skip
                yield self.files.located(clip)


@dataclass(frozen=True)
class _Tracks:
    split: str
    files: _AudioFiles
    labels: Path
    options: ReadOptions

    def recordings(self) -> list[str]:
        return [clip.name for clip in self.clips() if isinstance(clip, RawClip)]

    def count(self) -> int:
        return len(self._files())

    def clips(self) -> Iterator[RawClip | Problem]:
        for path in self._files():
            file = path.relative_to(self.labels).as_posix() if self.labels.is_dir() else path.name
            try:
                track = read_track(path, program_in_folder(path), self.options.of_tracks)
            except (OSError, ValueError) as problem:
                yield Problem(file, 1, recording_of(path), "annotation", str(problem))
                continue
            own = Path(file).with_name(recording_of(path)).as_posix()
            by_recording: dict[str, list[TrackEvent]] = {} if any(e.recording for e in track.events) else {own: []}
            for event in track.events:
                by_recording.setdefault(event.recording or own, []).append(event)
            for name, events in by_recording.items():
                clip = RawClip(
                    name, self.split, file, events[0].line if events else 1, duration=track.duration or None,
                    events=tuple(RawEvent(e.onset, e.offset, e.label, e.line) for e in events),
                    repairs=track.left_out if name == next(iter(by_recording)) else (),
                )  # fmt: skip
                yield self.files.located(clip)

    def _files(self) -> list[Path]:
        return label_files(self.labels) if self.labels.is_dir() else [self.labels]


class _Json:
    """Events in JSON. Read at once: what is wrong is known by then, and listed with the clips."""

    def __init__(self, split: str, files: _AudioFiles, path: Path) -> None:
        self.split, self.files, self.path = split, files, path
        self._make = EventMaker("reference", Repairs())
        self._found = read_json(path, self._make)

    def recordings(self) -> list[str]:
        return list(self._found)

    def count(self) -> int:
        return len(self._found)

    def clips(self) -> Iterator[RawClip | Problem]:
        for place, message in self._make.problems.found:
            line = re.search(r"[0-9]+$", place)
            yield Problem(self.path.name, int(line[0]) if line else 1, "", "annotation", message)
        for number, (name, entry) in enumerate(self._found.items(), 1):
            events = tuple(RawEvent(e.onset, e.offset, e.label, number) for e in entry.events)
            clip = RawClip(name, self.split, self.path.name, number, duration=entry.duration, events=events)
            yield self.files.located(clip)


@dataclass(frozen=True)
class _Silent:
    """Audio files that nobody labelled, taken as clips without events."""

    split: str
    files: _AudioFiles
    paths: tuple[str, ...]

    def count(self) -> int:
        return len(self.paths)

    def clips(self) -> Iterator[RawClip | Problem]:
        for path in self.paths:
            repair = ("file without labels: a clip without events, as --unlisted says", 1)
            yield self.files.located(RawClip(path, self.split, path, 1, repairs=(repair,)))
