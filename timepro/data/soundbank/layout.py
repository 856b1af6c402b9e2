"""What lies in a sound bank's folder, by its names alone: no recording is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from timepro.answers.write import can_write
from timepro.data.files import text_lines
from timepro.data.labels import near
from timepro.data.manifest import CONTROL
from timepro.data.soundbank.settings import PARTS
from timepro.data.tracks import AUDIO

BACKGROUNDS = "backgrounds"
CAPTIONS = "captions.txt"
ENDINGS = (*AUDIO, ".oga")
_MAX_LINE = 1 << 12  # bytes of a caption


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of a bank.

    Args:
        label: its class, or `BACKGROUNDS`.
        path: relative to the bank.
        source: what it was made from: its sub-folder within the class, or itself.
        size, changed: bytes, and nanoseconds since the epoch.
    """

    label: str
    path: str
    source: str
    size: int
    changed: int


@dataclass
class Layout:
    """A bank as its folder shows it.

    Args:
        captions: by label.
        ignored: files that are neither recordings nor captions, relative to the bank.
        problems: what is wrong, with what to do.
    """

    folder: Path
    recordings: list[Recording] = field(default_factory=list)
    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Its classes, in the order of the alphabet."""
        return sorted(self.captions)

    def key(self, times: bool = True) -> str:
        """A digest that changes with any file, by its name, size and time.

        Args:
            times: False leaves them out, since a copy on another machine does not keep them.
        """
        h = hashlib.sha256()
        for r in self.recordings:
            h.update(f"{r.path}\0{r.size}\0{r.changed if times else 0}\n".encode(errors="surrogateescape"))
        h.update(repr(sorted(self.captions.items())).encode(errors="backslashreplace"))
        return h.hexdigest()[:16]


def spoken(label: str) -> str:
    """How one says a label: "glass_breaking" is "glass breaking"."""
    return label.replace("_", " ").strip()


def read_layout(folder: Path, classes: list[str] | None = None) -> Layout:
    """List a bank. What is wrong with it stands in `problems`.

    Args:
        classes: sub-folders to read; None or empty for all.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; a sound bank is a folder with a sub-folder of recordings for each class"
        )
    found = Layout(folder)
    names = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            names.append(entry.name)
        elif entry.name.lower().endswith(ENDINGS):
            found.problems.append(f"{entry.name}: lies in no class's folder; move it into one, or remove it")
        else:
            found.ignored.append(entry.name)
    wanted = classes or [name for name in names if name != BACKGROUNDS]
    for label in sorted(set(wanted)):
        if label not in names or label == BACKGROUNDS:
            found.problems.append(f"data.bank.classes: the bank has no class {label!r}{near(label, names)}")
        else:
            _read_class(found, label)
    if BACKGROUNDS in names:
        _read_files(found, BACKGROUNDS)
        if not any(r.label == BACKGROUNDS for r in found.recordings):
            found.problems.append(f"{BACKGROUNDS}/: holds no recordings; add some, or remove the folder")
    if not wanted:
        found.problems.append("no class: make a sub-folder for each, and put its recordings there")
    return found


def _read_class(found: Layout, label: str) -> None:
    if CONTROL.search(label) or not all(can_write(label, style) for style in ("digits", "timestamps")):
        found.problems.append(f"{label}/: an answer cannot hold this label; rename the folder, such as glass_breaking")
    found.captions[label] = (f"the sound of {spoken(label)}",)
    _read_files(found, label)
    path = found.folder / label / CAPTIONS
    if path.is_file():
        lines = [text.strip() for _, text in text_lines(path, _MAX_LINE)]
        captions = tuple(dict.fromkeys(line for line in lines if line))
        for text in captions:
            if not all(can_write(text, style) for style in ("digits", "timestamps")):
                found.problems.append(f"{label}/{CAPTIONS}: an answer cannot hold {text!r}; write it in other words")
        if not captions:
            found.problems.append(f"{label}/{CAPTIONS}: is empty; write a caption a line, or remove it")
        found.captions[label] = captions or found.captions[label]


def too_few(label: str, count: int) -> str:
    """What is said of a class, or of the backgrounds, with too few sources to be split; "" where they are enough."""
    if count >= len(PARTS):
        return ""
    without = "remove the folder" if label == BACKGROUNDS else "leave the class out (data.bank.classes)"
    return (
        f"{label}/: {count} of the {len(PARTS)} sources that are needed, one each for {', '.join(PARTS)}; add "
        f"recordings, or {without}. Recordings in one sub-folder, or equal ones, count as one source"
    )


def problems_at_once(found: Layout) -> list[str]:
    """What is wrong with a bank as far as names alone show it."""
    sources = {label: {r.source for r in found.recordings if r.label == label} for label in found.labels}
    few = [too_few(label, len(names)) for label, names in sources.items()]
    return [*found.problems, *(problem for problem in few if problem)]


def _read_files(found: Layout, label: str) -> None:
    for below, status in _files(found.folder / label):
        place = f"{label}/{below}"
        if below.lower().endswith(ENDINGS):
            source = below.partition("/")[0]
            found.recordings.append(Recording(label, place, source, status.st_size, status.st_mtime_ns))
        elif below != CAPTIONS:
            found.ignored.append(place)


def _files(folder: str | Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder with what the file system says of them, sorted; hidden ones are passed over."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):  # text, not paths: there may be 100,000
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.stat()
