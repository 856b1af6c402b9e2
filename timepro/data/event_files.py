"""Reading events from files: tables, JSON and the label files of annotation programs, as references and as predictions.

Tables (.tsv, .csv) have a header with the columns ``filename onset offset event_label``; `timepro.data.table` has their
grammar, `timepro.data.event_json` that of JSON (.json, .jsonl), `timepro.data.tracks` the programs whose files are
read. A folder is read as the label files in it, one a recording.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from timepro.data.event_json import read_json
from timepro.data.event_parts import Bad, EventMaker, FileEvents, Role, column, duration_of, name_of
from timepro.data.repairs import Repairs
from timepro.data.table import CAPTION, COLUMNS, CONFIDENCE, NAN_ROW, Table, event_rows
from timepro.data.tracks import ENDINGS, TrackOptions, program_of, read_track, recording_of
from timepro.data.values import is_missing

_KNOWN = ".tsv, .csv, .json, .jsonl, or a label file of Audacity, Sonic Visualiser, Raven, Praat, JAMS or WebVTT"


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read. columns: our names of a table's columns -> the file's; tier: of a TextGrid."""

    columns: Mapping[str, str] | None = None
    tier: str = ""

    @property
    def of_tracks(self) -> TrackOptions:
        """The part that the label files of programs have a use for."""
        label = (self.columns or {}).get("event_label", "")
        return TrackOptions("" if label == "event_label" else label, self.tier)


def read_event_file(
    path: str | os.PathLike[str], role: Role, repairs: Repairs | None = None, options: ReadOptions | None = None
) -> dict[str, FileEvents]:
    """File name -> events, in the order of the file; a folder holds label files, one a recording.

    Args:
        role: predictions are scored as they are, references must be in order (`timepro.data.event_parts`).
        repairs: takes what was read otherwise than it stands.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it cannot be read; names file, line and column or key of all problems.
    """
    path, options = Path(path), options or ReadOptions()
    make = EventMaker(role, Repairs() if repairs is None else repairs)
    files = _read(path, make, options)
    make.problems.refuse(path)
    return files


def _read(path: Path, make: EventMaker, options: ReadOptions) -> dict[str, FileEvents]:
    if path.is_dir():
        return _read_folder(path, make, options)
    _require(path)
    if path.suffix.lower() in (".json", ".jsonl"):
        return read_json(path, make)
    if program := program_of(path):
        return _from_track(path, program, recording_of(path), make, options)
    if path.suffix.lower() not in (".tsv", ".csv", ".txt"):
        raise ValueError(f"{path}: unknown ending {path.suffix!r}; known are {_KNOWN}")
    return _read_table(path, make, options)


def read_durations(path: str | os.PathLike[str]) -> dict[str, float]:
    """File name -> duration in seconds, from a table with the columns ``filename duration``; errors as above."""
    durations: dict[str, float] = {}
    path = Path(path)
    _require(path)
    for row in Table(path, {"filename": "filename", "duration": "duration"}).rows():
        try:
            if row.problem:
                raise Bad(row.problem)
            name, duration = name_of(row.cells["filename"]), duration_of(row.cells["duration"], column)
            if durations.setdefault(name, duration) != duration:
                raise Bad(f"column 'duration': {name!r} has {durations[name]} s further up; keep one of the two")
        except Bad as problem:
            raise ValueError(f"{path}:{row.line}: {problem}") from None
    return durations


def label_files(folder: Path) -> list[Path]:
    """The files below a folder that can be label files, by their endings, sorted. Raises ValueError for none."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    if not found:
        raise ValueError(f"{folder}: no label files in it ({', '.join(ENDINGS)}); name the folder that holds them")
    return found


def program_in_folder(path: Path) -> str:
    """The program whose label file this is; an empty file is a recording without events. Else raises ValueError."""
    program = program_of(path) or ("" if path.stat().st_size else "Audacity")
    if not program:
        raise ValueError(
            f"{path}: this is not a label file of one recording (Audacity, Sonic Visualiser, Raven, Praat, JAMS, "
            "WebVTT); a table of several files is named itself, not its folder"
        )
    return program


def _require(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")


def _read_table(path: Path, make: EventMaker, options: ReadOptions) -> dict[str, FileEvents]:
    files: dict[str, FileEvents] = {}
    columns = {CONFIDENCE: CONFIDENCE, **(options.columns or {name: name for name in COLUMNS})}
    for row in event_rows(Table(path, columns, (CAPTION, CONFIDENCE))):
        place = f"{path}:{row.line}"
        if row.problem:
            make.problems.add(place, row.problem)
            continue
        entry = files.setdefault(row.name, FileEvents())
        if row.repair:
            make.repairs.add(row.repair, place)
        if row.silent:
            continue
        try:
            entry.add(make(row.onset, row.offset, row.label, column, place), make.confidence(row.confidence, place))
        except Bad as problem:
            make.problems.add(place, problem)
    return files


def _read_folder(folder: Path, make: EventMaker, options: ReadOptions) -> dict[str, FileEvents]:
    files: dict[str, FileEvents] = {}
    for path in label_files(folder):
        name = path.relative_to(folder).with_name(recording_of(path)).as_posix()
        for recording, entry in _from_track(path, program_in_folder(path), name, make, options).items():
            if recording in files:
                raise ValueError(f"{path}: {recording!r} has labels in another file of {folder}; keep one of the two")
            files[recording] = entry
    return files


def _from_track(path: Path, program: str, name: str, make: EventMaker, options: ReadOptions) -> dict[str, FileEvents]:
    track = read_track(path, program, options.of_tracks)
    own = all(event.recording is None for event in track.events)
    files: dict[str, FileEvents] = {name: FileEvents(duration=track.duration or None)} if own else {}
    for kind, line in track.left_out:
        make.repairs.add(kind, f"{path}:{line}")
    for event in track.events:
        place = f"{path}:{event.line}"
        entry = files.setdefault(event.recording or name, FileEvents())
        if all(map(is_missing, (event.onset, event.offset, event.label))):
            make.repairs.add(NAN_ROW, place)
            continue
        try:
            made = make(event.onset, event.offset, event.label, column, place)
            entry.add(made, make.confidence(event.confidence, place))
        except Bad as problem:
            make.problems.add(place, problem)
    return files
