"""Files that appear whole or not at all: the one way in which this project writes what somebody reads later."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """A UTF-8 text file to write that takes the place of ``path`` in one step, once the block has ended well.

    Others see the old file or the whole new one. The folder is made where needed; after an exception nothing is left.
    """
    with _replacing(Path(path), "w", "utf-8") as out:
        yield out


@contextmanager
def _replacing(path: Path, mode: str, encoding: str | None) -> Iterator[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=encoding) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)  # there only where the block has failed


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that gets the name ``target``, which must not exist, once the block has ended well.

    It lies beside the target until then; after an exception nothing is left of it.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # there only where something has failed


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in one step, see `replacing`."""
    with replacing(path) as out:
        out.write(text)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a binary file in one step, see `replacing`."""
    with _replacing(Path(path), "wb", None) as out:
        out.write(content)


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """Write a value as JSON in one step, see `replacing`."""
    with replacing(path) as out:
        json.dump(value, out, indent=indent)
