"""DESED, domestic sound events, as the `desed` package and the DCASE task 4 baselines lay it out.

    ROOT/metadata/train/audioset_strong.tsv, train/synthetic21_train/soundscapes.tsv, validation/validation.tsv,
         eval/public.tsv                  filename <tab> onset <tab> offset <tab> event_label
    ROOT/audio/...                        the same folders or those above; or audio/train/strong_label_real, *_16k
    ROOT/metadata/**/*durations.tsv       filename <tab> duration; compared with the audio where there is one

A line without times and label, or with the name alone, is a clip without events. Weak labels and unlabelled lists are
not read. Where a file is named like its folder (validation/validation.tsv) it stands for the folder; its parts
(test_dcase2018.tsv) are read only when --split names them. The split is the annotation's path below metadata:
validation, eval/public. The public evaluation set, eval/public, is what systems are compared on; there is no split
named test.
Sources: github.com/turpaultn/DESED, github.com/DCASE-REPO/DESED_task (confs of the recipes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from timepro.data.event_files import read_durations
from timepro.data.formats.base import Layout, Problem, RawClip, Source, folders_that_exist, with_other_endings
from timepro.data.formats.tables import EventTable, has_event_columns
from timepro.data.table import COLUMNS

_OTHER_NAMES = {"audioset_strong": "strong_label_real"}  # annotation -> folder of its audio


def find(root: Path) -> Layout:
    """The strong annotations below a root. Raises ValueError where the layout is another."""
    metadata = root / "metadata"
    if not metadata.is_dir() or not (root / "audio").is_dir():
        inner = sorted(path.parent for path in root.glob("*/metadata")) + sorted(
            path.parent for path in root.glob("*/*/metadata")
        )
        hint = f"; did you mean {' or '.join(map(str, inner))}?" if inner else ""
        raise ValueError(f"{root}: no folders metadata/ and audio/ in it{hint}")
    sources: list[Source] = []
    ignored: list[tuple[str, str]] = []
    for path in sorted(metadata.rglob("*.tsv")):
        file = path.relative_to(root).as_posix()
        if path.stem.endswith("durations"):
            continue
        if has_event_columns(path):
            sources.append(_Annotation(root, path, file))
        else:
            ignored.append((file, f"no strong labels (columns {', '.join(COLUMNS)})"))
    if not sources:
        others = f"; others there: {', '.join(file for file, _ in ignored)}" if ignored else ""
        raise ValueError(f"{metadata}: no table with the columns {', '.join(COLUMNS)}, separated by tabs{others}")
    return Layout(sources, ignored)


@dataclass(frozen=True)
class _Annotation:
    root: Path
    path: Path
    file: str

    @property
    def split(self) -> str:
        place = self.path.relative_to(self.root / "metadata").with_suffix("")
        return (place.parent if place.name == place.parent.name else place).as_posix()

    @cached_property
    def _table(self) -> EventTable:
        return EventTable(self.path, self.file)

    def count(self) -> int:
        return self._table.count()

    def clips(self) -> Iterator[RawClip | Problem]:
        audio = self.root / "audio"
        folder = audio / self.path.parent.relative_to(self.root / "metadata")
        names = [self.path.stem, _OTHER_NAMES.get(self.path.stem, folder.name)]
        wanted = [folder / (name + rate) for name in names for rate in ("", "_16k")]
        above = [folder, *folder.parents]
        folders = folders_that_exist([*wanted, *above[: above.index(audio) + 1]], self.file)
        durations, split = _durations(self.path), self.split
        for rows in self._table.clips():
            if isinstance(rows, Problem):
                yield rows
                continue
            yield RawClip(
                rows.name,
                split,
                self.file,
                rows.line,
                folders,
                with_other_endings(rows.name),
                base=str(audio),
                duration=durations.get(rows.name),
                events=rows.events,
                problems=rows.problems,
                repairs=rows.repairs,
            )


def _durations(annotation: Path) -> dict[str, float]:
    """Stated durations in seconds by file name, from the table beside an annotation; empty where there is none."""
    for name in (f"{annotation.stem}_durations.tsv", "durations.tsv"):
        if (path := annotation.with_name(name)).is_file():
            return read_durations(path)
    return {}
