"""AudioGrounding, version 2: phrases of captions and when they sound.

    ROOT/{train,val,test}.json
        a list of {"audiocap_id", "audio_id": "YVIDEO.wav", "tokens": caption,
                   "phrases": [{"phrase", "start_index", "end_index", "segments": [[onset, offset]]}]}
    ROOT/audio/{train,val,test}/, ROOT/{train,val,test}/ or ROOT/audio/    YVIDEO.wav

An item is a clip with one query a phrase; a phrase without segments is a query for something absent. Several captions
of one recording are several clips, `YVIDEO-AUDIOCAP_ID`. Sources: doi.org/10.5281/zenodo.7269161,
github.com/wsntxxn/TextToAudioGrounding; that the audio lies in one of these folders is this project's reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timepro.data.formats.base import Layout, Problem, RawClip, RawQuery, folders_that_exist, with_other_endings
from timepro.data.formats.json_files import json_items
from timepro.data.manifest import shown


def find(root: Path) -> Layout:
    """The splits below a root. Raises ValueError where the layout is another."""
    sources = [_Split(root, name) for name in ("train", "val", "test") if (root / f"{name}.json").is_file()]
    if not sources:
        raise ValueError(f"{root}: none of train.json, val.json, test.json in it; unpack the label files there")
    return Layout(sources, [])


@dataclass(frozen=True)
class _Split:
    root: Path
    split: str

    @property
    def file(self) -> str:
        return f"{self.split}.json"

    def count(self) -> int:
        return sum(1 for _ in json_items(self.root / self.file))

    def clips(self) -> Iterator[RawClip | Problem]:
        audio = self.root / "audio"
        folders = folders_that_exist([audio / self.split, self.root / self.split, audio], self.file)
        for number, item in json_items(self.root / self.file):
            try:
                name, caption = _field(item, "audio_id"), str(item.get("audiocap_id", number))
                queries = tuple(_query(phrase, number) for phrase in _list(item, "phrases"))
            except ValueError as problem:
                clip = str(item.get("audio_id", "")) if isinstance(item, dict) else ""
                yield Problem(self.file, number, clip, "annotation", str(problem))
                continue
            stem = Path(name).stem
            yield RawClip(
                name, self.split, self.file, number, folders, with_other_endings(name), id=f"{stem}-{caption}",
                queries=queries, tasks=("ag",),
            )  # fmt: skip


def _query(phrase: Any, number: int) -> RawQuery:
    intervals = []
    for pair in _list(phrase, "segments"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"a segment is {shown(pair)}; expected [onset, offset]")
        intervals.append((pair[0], pair[1]))
    return RawQuery(_field(phrase, "phrase"), tuple(intervals), number)


def _field(item: Any, key: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"'{key}' is {shown(value)}; expected text")
    return value


def _list(item: Any, key: str) -> list[Any]:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, list):
        raise ValueError(f"'{key}' is {shown(value)}; expected a list")
    return value
