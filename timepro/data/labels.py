"""Label maps: which classes there are, and what another data set's labels are called here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from timepro.data.files import text_lines
from timepro.data.manifest import CONTROL, shown

LEFT_OUT = "-"
_MAX_LINE = 1 << 16  # bytes


def read_label_map(path: Path) -> dict[str, str | None]:
    """Read a label map: a label a line, and behind a tab what it becomes.

    A label alone keeps its name, so that a list of classes is a map too. ``-`` behind the tab leaves the label's events
    out: the label maps to None. Blank lines and lines that begin with ``#`` are comments.
    Raises FileNotFoundError for a missing file and ValueError, naming file and line, for a bad one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label map; write a line 'label<tab>new label' for each label")
    found: dict[str, str | None] = {}
    for number, text in text_lines(path, _MAX_LINE):
        if not text.strip() or text.startswith("#"):
            continue
        label, *to = (field.strip() for field in text.split("\t"))
        if len(to) > 1 or not label or to == [""] or CONTROL.search("".join([label, *to])):
            raise ValueError(f"{path}:{number}: {shown(text)}; expected a label, or two with one tab between them")
        if label in found:
            raise ValueError(f"{path}:{number}: label {label!r} stands here twice; keep one line")
        new = to[0] if to else label
        found[label] = None if new == LEFT_OUT else new
    if not found:
        raise ValueError(f"{path}: the label map is empty; write a line 'label<tab>new label' for each label")
    return found


def near(label: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with names like a label, or nothing where none is."""
    return _near(label[:100], tuple(known))


@lru_cache(maxsize=1024)
def _near(label: str, known: tuple[str, ...]) -> str:
    # Remembered: among hundreds of names the search takes milliseconds, and the same label comes again and again.
    names = difflib.get_close_matches(label, known, n=3)
    return f"; did you mean {' or '.join(repr(name) for name in names)}?" if names else ""
