"""Files that the commands draw into: the ending decides the format, and different pictures get different names.

Nothing heavy is imported here, so that a wrong ending is refused before any work begins.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

FORMATS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".pdf": "pdf", ".svg": "svg"}
VECTOR = ("pdf", "svg")
MAX_CLIPS = 6  # below one another in one picture
_LONGEST_NAME = 100  # characters of a default name; file systems allow 255 bytes


def picture_format(path: Path) -> str:
    """The format that a picture file's ending stands for.

    Raises:
        ValueError: an ending that no picture is written with.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        wrong = f"the ending {ending!r} is not one of a picture" if ending else "the name has no ending"
        raise ValueError(f"{path}: {wrong}; known endings: {', '.join(FORMATS)}")
    return FORMATS[ending]


def picture_path(text: str) -> Path:
    """The type of an option that names a picture file."""
    return _checked(text, picture_format)


def page_path(text: str) -> Path:
    """The type of an option that names an HTML page."""
    return _checked(text, _page_format)


def _page_format(path: Path) -> str:
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a page is written as HTML; give a name that ends in .html")
    return "html"


def _checked(text: str, check: Callable[[Path], str]) -> Path:
    path = Path(text)
    try:
        check(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def beside(manifest: Path) -> Path:
    """The picture of a manifest: its name with .png for .jsonl; any other ending stays, for it may be what differs."""
    return manifest.with_suffix(".png") if manifest.suffix == ".jsonl" else manifest.with_name(f"{manifest.name}.png")


def default_name(kind: str, *parts: str, unseen: Sequence[str] = (), ending: str = ".png") -> str:
    """A file name made of everything that a picture depends on, so that two different pictures never share one.

    Characters that a file name or a shell would take for something else become "-". Where that, or cutting a long
    name short, loses something, a digest tells the names apart.

    Args:
        unseen: what the picture depends on too, but would make the name long: always in the digest.
    """
    given = [part for part in parts if part]
    plain = [re.sub(r"[^\w.,=-]+", "-", part) for part in given]
    name = "-".join([kind, *(["+".join(plain)] if plain else [])])
    if plain != given or unseen or len(name) > _LONGEST_NAME:
        digest = hashlib.sha256("\0".join([*given, *unseen]).encode()).hexdigest()[:8]
        name = f"{name[:_LONGEST_NAME]}-{digest}"
    return name + ending
