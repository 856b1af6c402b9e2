"""URBAN-SED 2.0: a JAMS file a clip, made by scaper.

    ROOT/annotations/{train,validate,test}/NAME.jams    an annotation in the namespace scaper (1.0: sound_event)
    ROOT/audio/{train,validate,test}/NAME.wav, or ROOT/audio/NAME.wav

An observation with role "foreground" is an event: its own time and duration (those inside `value` are from before
time stretching) and `value.label`; the background is not an event. The simplified .txt beside it says no more and is
not read. Sources: doi.org/10.5281/zenodo.1324404, github.com/soundata/soundata (urbansed.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timepro.data.formats.base import Layout, Problem, RawClip, RawEvent, folders_that_exist, with_other_endings
from timepro.data.formats.json_files import json_object

NAMESPACES = ("scaper", "sound_event")


def find(root: Path) -> Layout:
    """The splits below a root. Raises ValueError where the layout is another."""
    folders = sorted(path for path in (root / "annotations").glob("*") if path.is_dir())
    sources = [_Split(root, folder) for folder in folders if any(folder.glob("*.jams"))]
    if not sources:
        raise ValueError(f"{root}: no JAMS files in annotations/*/; the root is the folder URBAN-SED_v2.0.0")
    return Layout(list(sources), [])


@dataclass(frozen=True)
class _Split:
    root: Path
    folder: Path

    @property
    def split(self) -> str:
        return self.folder.name

    def count(self) -> int:
        return sum(1 for _ in self.folder.glob("*.jams"))

    def clips(self) -> Iterator[RawClip | Problem]:
        audio = self.root / "audio"
        folders = folders_that_exist([audio / self.split, audio], f"annotations/{self.split}")
        for path in sorted(self.folder.glob("*.jams")):
            file = path.relative_to(self.root).as_posix()
            try:
                duration, events = _read(json_object(path))
            except (OSError, ValueError) as problem:
                yield Problem(file, 1, path.stem, "annotation", str(problem))
                continue
            names = with_other_endings(f"{path.stem}.wav")
            yield RawClip(
                path.stem, self.split, file, 1, folders, names, base=str(audio), duration=duration, events=events
            )


def _read(jams: Any) -> tuple[float | None, tuple[RawEvent, ...]]:
    """Stated duration and events. Raises ValueError for JSON that is no such JAMS."""
    annotations = jams.get("annotations") if isinstance(jams, dict) else None
    if not isinstance(annotations, list):
        raise ValueError("no list 'annotations'; is this a JAMS file?")
    known = [a for a in annotations if isinstance(a, dict) and a.get("namespace") in NAMESPACES]
    if len(known) != 1:
        raise ValueError(f"{len(known)} annotations with namespace {' or '.join(NAMESPACES)}; expected one")
    observations = known[0].get("data")
    if not isinstance(observations, list):
        raise ValueError("its annotation has no list 'data'")
    events = []
    for number, item in enumerate(observations, 1):
        value = item.get("value") if isinstance(item, dict) else None
        if not isinstance(value, dict) or value.get("role") not in ("foreground", "background"):
            raise ValueError(f"observation {number} has no value with role foreground or background")
        if value["role"] == "foreground":
            onset, length = item.get("time"), item.get("duration")
            try:
                offset = round(onset + length, 6)  # the sum of two decimals need not be one
            except (TypeError, ValueError, OverflowError):
                offset = length
            events.append(RawEvent(onset, offset, value.get("label"), number))
    metadata = jams.get("file_metadata")
    duration = metadata.get("duration") if isinstance(metadata, dict) else None
    return (duration if isinstance(duration, (int, float)) else None), tuple(events)
