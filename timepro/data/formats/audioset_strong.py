"""AudioSet's temporally strong labels (Hershey et al., 2021).

    ROOT/audioset_{train,eval}_strong.tsv    segment_id <tab> start_time_seconds <tab> end_time_seconds <tab> label
    ROOT/mid_to_display_name.tsv             /m/09x0r <tab> Speech (no header)
    ROOT/audio/{train,eval}/ or ROOT/audio/  SEGMENT.wav, .flac or .ogg; or YVIDEO.wav, as WavCaps and AudioCaps name it

A segment, `VIDEO_30000`, is the ten seconds of a video from a start in milliseconds. Labels become display names;
the framed positives and negatives (*_framed_posneg.tsv) are not read. The audio is not published: how its files are
named is this project's reading of common practice. Source: research.google.com/audioset/download_strong.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from timepro.data.formats.base import Layout, Problem, RawClip, Source, folders_that_exist, with_other_endings
from timepro.data.formats.tables import EventTable, read_pairs
from timepro.data.labels import near

COLUMNS = {
    "filename": "segment_id",
    "onset": "start_time_seconds",
    "offset": "end_time_seconds",
    "event_label": "label",
}
NAMES = "mid_to_display_name.tsv"


def find(root: Path) -> Layout:
    """The annotations below a root. Raises ValueError where the layout is another."""
    files = [root / f"audioset_{split}_strong.tsv" for split in ("train", "eval")]
    sources: list[Source] = [_Annotation(root, path) for path in files if path.is_file()]
    if not sources:
        raise ValueError(f"{root}: neither {files[0].name} nor {files[1].name} in it; download them there")
    if not (root / NAMES).is_file():
        raise ValueError(f"{root}: no {NAMES} in it, which says what labels like /m/09x0r mean; download it there")
    ignored = [(path.name, "frames, not events") for path in sorted(root.glob("*_framed_posneg.tsv"))]
    return Layout(sources, ignored)


@dataclass(frozen=True)
class _Annotation:
    root: Path
    path: Path

    @property
    def split(self) -> str:
        return self.path.name.split("_")[1]

    @cached_property
    def _table(self) -> EventTable:
        return EventTable(self.path, self.path.name, COLUMNS)

    def count(self) -> int:
        return self._table.count()

    def clips(self) -> Iterator[RawClip | Problem]:
        names = {mid: name for _, mid, name in read_pairs(self.root / NAMES)}
        audio = self.root / "audio"
        folders = folders_that_exist([audio / self.split, audio], self.path.name)
        for rows in self._table.clips():
            if isinstance(rows, Problem):
                yield rows
                continue
            problems = [
                Problem(self.path.name, e.line, rows.name, "unknown label", f"{e.label!r} is not in {NAMES}"
                        f"{near(e.label, names)}")
                for e in rows.events if e.label not in names
            ]  # fmt: skip
            yield RawClip(
                rows.name,
                self.split,
                self.path.name,
                rows.line,
                folders,
                (*with_other_endings(f"{rows.name}.wav"), *with_other_endings(f"Y{rows.name.rpartition('_')[0]}.wav")),
                id=rows.name,
                events=tuple(replace(e, label=names[e.label]) for e in rows.events if e.label in names),
                problems=(*rows.problems, *problems),
                repairs=rows.repairs,
            )
