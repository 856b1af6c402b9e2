"""What the readers of published data sets have in common: clips as an annotation states them, not yet checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

AUDIO_ENDINGS = (".wav", ".flac", ".ogg")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a clip, and where: a file below the root, a line (in JSON files: the number of the item)."""

    file: str
    line: int
    clip: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class RawEvent:
    """An event as it is written: times may be text or no times at all."""

    onset: Any
    offset: Any
    label: Any
    line: int
    caption: Any = None


@dataclass(frozen=True, slots=True)
class RawQuery:
    """A query as it is written, with its intervals (onset, offset)."""

    text: Any
    intervals: tuple[tuple[Any, Any], ...]
    line: int


@dataclass(frozen=True, slots=True)
class RawClip:
    """One clip of an annotation.

    name: as the annotation calls it, for reports.
    id: of the manifest; None where it is to be the audio's path below ``base``, without its ending.
    folders, names: the audio is the first that exists of ``folder/name``.
    duration: in seconds, as stated; None where nothing is said.
    problems: what the reader itself has against the clip.
    repairs: (kind, line) of what the reader read otherwise than it stands.
    tasks: those that the annotation serves; None for all. Without events because nobody wrote them down is not silence.
    """

    name: str
    split: str
    file: str
    line: int
    folders: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    id: str | None = None
    base: str = ""
    duration: float | None = None
    events: tuple[RawEvent, ...] = ()
    queries: tuple[RawQuery, ...] = ()
    problems: tuple[Problem, ...] = ()
    tasks: tuple[str, ...] | None = None
    repairs: tuple[tuple[str, int], ...] = ()


class Source(Protocol):
    """One annotation file, or one folder of them.

    split: a path such as "train/audioset_strong": `--split train` and `--split train/audioset_strong` choose it.
    """

    @property
    def split(self) -> str: ...

    def count(self) -> int:
        """Number of clips, for the progress bar."""

    def clips(self) -> Iterator[RawClip | Problem]:
        """The clips one by one, and problems that belong to none."""


@dataclass(frozen=True)
class Layout:
    """What was found below a root: sources to read, and files that are left alone with the reason why."""

    sources: Sequence[Source]
    ignored: list[tuple[str, str]]


def with_other_endings(name: str) -> tuple[str, ...]:
    """An audio file's name, then the same with other endings: data sets are often kept converted."""
    stem = name
    for ending in AUDIO_ENDINGS:
        if name.lower().endswith(ending):
            stem = name[: -len(ending)]
    return (name, *(stem + ending for ending in AUDIO_ENDINGS if stem + ending != name))


def folders_that_exist(wanted: list[Path], what: str) -> tuple[str, ...]:
    """Those of the folders that are there, each once. Raises ValueError, naming all, where none is."""
    found = dict.fromkeys(str(folder) for folder in wanted if folder.is_dir())
    if not found:
        raise ValueError(
            f"{what}: none of its audio folders exists: {', '.join(dict.fromkeys(map(str, wanted)))}; "
            "put the audio there, or a link to it"
        )
    return tuple(found)
