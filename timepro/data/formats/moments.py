"""What the data sets of audio moment retrieval share: JSON lines of a query, its recording and its windows.

    {"qid": "rwT__ERCUno_2", "query": "Engine noise", "duration": 154, "vid": "rwT__ERCUno",
     "relevant_windows": [[89, 154]]}

The form is that of QVHighlights, in which `lighthouse` (github.com/line/lighthouse, `data/`) keeps both data sets.
Lines of one recording that follow each other are one clip with a query a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from timepro.data.files import text_lines
from timepro.data.formats.base import Layout, Problem, RawClip, RawQuery, folders_that_exist, with_other_endings
from timepro.data.manifest import shown

SPLITS = {
    "train": ("train",),
    "val": ("val", "valid"),
    "test": ("test",),
}  # what a split's files and folders are called
_MAX_LINE = 1 << 20


def find(root: Path, names: Sequence[str]) -> Layout:
    """The splits below a root.

    Args:
        names: of the files, in which `{split}` stands for a split.

    Raises:
        ValueError: none of the files is there.
    """
    sources = []
    for split, called in SPLITS.items():
        wanted = (root / name.format(split=word) for name in names for word in called)
        path = next((path for path in wanted if path.is_file()), None)
        if path is not None:
            sources.append(_Split(root, split, path.relative_to(root).as_posix()))
    if not sources:
        expected = ", ".join(name.format(split="{train,val,test}") for name in names)
        raise ValueError(f"{root}: none of {expected} in it; put the label files there")
    return Layout(sources, [])


@dataclass(frozen=True)
class _Split:
    root: Path
    split: str
    file: str

    def count(self) -> int:
        return sum(1 for _ in groupby(_lines(self.root / self.file), key=_recording))

    def clips(self) -> Iterator[RawClip | Problem]:
        root, called = self.root, SPLITS[self.split]
        resampled = sorted(root.glob("wav/*hz"))
        folders = [above / word for above in (root / "audio", root, *resampled, root / "wav") for word in called]
        audio = folders_that_exist([*folders, root / "audio", root / "wav"], self.file)
        seen: set[str] = set()
        for name, group in groupby(_lines(root / self.file), key=_recording):
            queries, problems = [], []
            lines = list(group)
            for number, item in lines:
                try:
                    queries.append(_query(item, number))
                except ValueError as problem:
                    problems.append(Problem(self.file, number, name, "annotation", str(problem)))
            first = lines[0][0]
            if not name:
                yield from problems
                continue
            again = f"-{lines[0][1].get('qid', first)}" if name in seen else ""  # lines of it stood further up, too
            seen.add(name)
            # The stated duration is in whole seconds, rounded down: the audio's own counts.
            yield RawClip(
                name, self.split, self.file, first, audio, with_other_endings(f"{name}.wav"), id=f"{name}{again}",
                queries=tuple(queries), problems=tuple(problems), tasks=("ag",),
            )  # fmt: skip


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in text_lines(path, _MAX_LINE):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise ValueError(f"{path}:{number}: not valid JSON: {problem}; is this the right file?") from None


def _recording(line: tuple[int, Any]) -> str:
    name = line[1].get("vid") if isinstance(line[1], Mapping) else None
    return name if isinstance(name, str) else ""


def _query(item: Any, number: int) -> RawQuery:
    if not isinstance(item, Mapping):
        raise ValueError(f"the line is {shown(item)}; expected an object")
    for key in ("vid", "query"):
        if not isinstance(item.get(key), str) or not item[key]:
            raise ValueError(f"'{key}' is {shown(item.get(key))}; expected text")
    windows = item.get("relevant_windows")
    if not isinstance(windows, list):
        raise ValueError(f"'relevant_windows' is {shown(windows)}; expected a list")
    for window in windows:
        if not isinstance(window, list) or len(window) != 2:
            raise ValueError(f"a window is {shown(window)}; expected [onset, offset]")
    return RawQuery(item["query"], tuple((onset, offset) for onset, offset in windows), number)
