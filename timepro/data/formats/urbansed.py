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

from timepro.data.formats.base import Layout, Problem, RawClip, RawEvent, folders_that_exist, with_other_endings
from timepro.data.formats.json_files import json_object
from timepro.data.tracks import read_jams


def find(root: Path) -> Layout:
    """The splits below a root. Raises ValueError where the layout is another."""
    folders = sorted(path for path in (root / "annotations").glob("*") if path.is_dir())
    sources = [_Split(root, folder) for folder in folders if any(folder.glob("*.jams"))]
    if not sources:
        raise ValueError(f"{root}: no JAMS files in annotations/*/; the root is the folder URBAN-SED_v2.0.0")
    return Layout(sources, [])


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
                duration, observed = read_jams(json_object(path))
            except (OSError, ValueError) as problem:
                yield Problem(file, 1, path.stem, "annotation", str(problem))
                continue
            names = with_other_endings(f"{path.stem}.wav")
            events = tuple(RawEvent(e.onset, e.offset, e.label, e.line) for e in observed)
            yield RawClip(
                path.stem, self.split, file, 1, folders, names, base=str(audio), duration=duration, events=events
            )
