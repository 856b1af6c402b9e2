"""FTAR, the temporal question answering data of TimeAudio (arXiv 2511.11039; Hugging Face: lysanderism/FTAR).

    ROOT/train/temporal_audio_grounding.json, ROOT/train/dense_audio_caption.json (and the same in ROOT/test/ or ROOT/)
        a list of {"id": "Y1.flac", "audio": "/data/WavCaps/AudioSet_SL_flac/Y1.flac", "question", "answer",
                   "dataset", "task", "split", "duration"}
    ROOT/audio/ or ROOT/    the audio, under the end of its path: WavCaps/AudioSet_SL_flac/Y1.flac, ... or Y1.flac

Grounding: the query is what stands in quotes in the question, single or double, the answer its intervals,
`1.2-3.4, 5-6.1`.
Captions: `7.90 - 8.32, 8.71 - 8.81, brief sounds are heard. 0.00 - 10.00, The sound of a truck dominates.` gives an
event an interval, with the sentence as caption and, since there are no classes, as label too.

Each file is a split: `--split train/dense_audio_caption` keeps the tasks apart, as training on captions needs.

The keys and the captions' form are as the public viewer of the data set shows them. The grounding answers' form, the
test folder and where the audio lies are this project's reading, from the data card and TimeAudio's code. One recording
has many questions, so a clip's id is its file and its number there. An empty answer is a problem, not an absent sound;
a duration of 0 says nothing. A semicolon in a caption would part two events in an answer, so it is written as a comma,
and listed. A question with two texts in quotes is a problem. Speech summaries and open questions, the other files, ask
for no events and are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from timepro.data.formats.base import (
    Layout,
    Problem,
    RawClip,
    RawEvent,
    RawQuery,
    folders_that_exist,
    with_other_endings,
)
from timepro.data.formats.json_files import json_items
from timepro.data.manifest import shown

GROUNDING, CAPTIONS = "temporal_audio_grounding", "dense_audio_caption"
# Bounded and possessive: linear time whatever an answer holds.
_TIME = r"[0-9]{1,12}+(?:\.[0-9]{1,12}+)?+"
_INTERVAL = re.compile(rf"({_TIME})\s*+-\s*+({_TIME})")
_ONE = rf"{_TIME}\s*+-\s*+{_TIME}"
_GROUP = re.compile(rf"(?:(?<=\s)|^)(?:{_ONE}\s*+,\s*+)++")  # intervals, each with a comma: a caption follows
_BETWEEN = re.compile(r"(?:[\s,;.]|and)*+")
# A quote opens in front of a word and closes behind one; what stands between letters is an apostrophe.
_DOUBLE = (re.compile(r'"[^"]+"'), re.compile("\u201c[^\u201c\u201d]+\u201d"))
_OPENING, _CLOSING = re.compile(r"(?<!\w)'(?=\S)"), re.compile(r"(?<=\S)'(?!\w)")
_PARTED = "caption with ';', which parts events in an answer: written with ','"


def find(root: Path) -> Layout:
    """The grounding and caption files below a root. Raises ValueError where there is none."""
    sources = []
    ignored = []
    for folder in ("train", "test", ""):
        for path in sorted((root / folder).glob("*.json")):
            if path.stem in (GROUNDING, CAPTIONS):
                sources.append(_Questions(root, path))
            else:
                ignored.append((path.relative_to(root).as_posix(), "asks for no events"))
    if not sources:
        raise ValueError(f"{root}: no {GROUNDING}.json or {CAPTIONS}.json in it, in train/ or in test/")
    return Layout(sources, ignored)


@dataclass(frozen=True)
class _Questions:
    root: Path
    path: Path

    @property
    def file(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @property
    def split(self) -> str:
        return self.file.removesuffix(".json")

    def count(self) -> int:
        return sum(1 for _ in json_items(self.path))

    def clips(self) -> Iterator[RawClip | Problem]:
        folders = folders_that_exist([self.root / "audio", self.root], self.file)
        for number, item in json_items(self.path):
            name = str(item.get("id", "")) if isinstance(item, dict) else ""
            try:
                yield self._clip(number, item, folders)
            except ValueError as problem:
                yield Problem(self.file, number, name, "annotation", str(problem))

    def _clip(self, number: int, item: Any, folders: tuple[str, ...]) -> RawClip:
        audio, question, answer = (_field(item, key) for key in ("audio", "question", "answer"))
        parts = [part for part in PurePosixPath(audio).parts if part != "/"]
        names = ("/".join(parts[i:]) for i in range(len(parts)))
        duration = item.get("duration")
        grounding = self.path.stem == GROUNDING
        return RawClip(
            str(item.get("id") or parts[-1]),
            self.split,
            self.file,
            number,
            folders,
            tuple(other for name in names for other in with_other_endings(name)),
            id=f"{self.split}/{number}",
            duration=duration if isinstance(duration, (int, float)) and duration > 0 else None,
            events=() if grounding else tuple(_captions(answer, number)),
            queries=(_grounding(question, answer, number),) if grounding else (),
            tasks=("ag",) if grounding else ("dac",),
            repairs=() if grounding or ";" not in answer else ((_PARTED, number),),
        )


def _grounding(question: str, answer: str, number: int) -> RawQuery:
    query = _quoted(question)
    rest = _INTERVAL.sub("", answer)
    intervals = tuple(_INTERVAL.findall(answer))
    if not intervals or not _BETWEEN.fullmatch(rest):
        raise ValueError(f"the answer {shown(answer)} is not a list of intervals like '1.2-3.4, 5-6.1'")
    return RawQuery(" ".join(query.split()), intervals, number)


def _quoted(question: str) -> str:
    """The one text in quotes. Single ones may hold apostrophes, also at the end of a word ('the dogs' barking')."""
    spans = [match.span() for pattern in _DOUBLE for match in pattern.finditer(question)]
    opening = [quote.start() for quote in _OPENING.finditer(question)]
    for start, end in pairwise([*opening, len(question)]):
        closing = [quote.end() for quote in _CLOSING.finditer(question, start + 1, end)]
        spans += [(start, closing[-1])] if closing else []
    outer = [s for s in spans if not any(o != s and o[0] <= s[0] and s[1] <= o[1] for o in spans)]
    texts = [text for start, end in outer if (text := question[start + 1 : end - 1].strip())]
    if not texts:
        raise ValueError(f"no query in quotes in the question {shown(question)}")
    if len(texts) > 1:
        raise ValueError(f"{len(texts)} texts in quotes in the question {shown(question)}; which is asked for?")
    return texts[0]


def _captions(answer: str, number: int) -> Iterator[RawEvent]:
    groups = list(_GROUP.finditer(answer))
    if not groups or answer[: groups[0].start()].strip():
        raise ValueError(f"the answer {shown(answer)} does not begin with an interval, like '0.0 - 1.5, A dog barks.'")
    ends = [group.start() for group in groups[1:]] + [len(answer)]
    for group, end in zip(groups, ends, strict=True):
        caption = " ".join(answer[group.end() : end].split())
        if not caption:
            raise ValueError(f"no caption behind {shown(group.group())}")
        caption = caption.replace(";", ",")
        for onset, offset in _INTERVAL.findall(group.group()):
            yield RawEvent(onset, offset, caption, number, caption)


def _field(item: Any, key: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{key}' is {shown(value)}; expected text that is not empty")
    return value
