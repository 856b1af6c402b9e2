"""Files to read: lines with a bound on their length, and what is wrong with a path."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

_PIECE = 1 << 20  # bytes of an overlong line that are read, and forgotten, at a time


def bounded_lines(path: str | os.PathLike[str], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (line number, line) without line ends, LF or CRLF, and without a byte order mark.

    In place of a line longer than ``limit`` bytes comes None: it is passed over in pieces and never held.
    """
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(limit + 2):
            number += 1
            if len(line) > limit and not line.endswith(b"\n"):
                # The next line is looked for only once the caller has had its say: most give up here.
                yield number, None
                _pass_over(file)
                continue
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            yield number, line.rstrip(b"\r\n")


def text_lines(path: str | os.PathLike[str], limit: int) -> Iterator[tuple[int, str]]:
    """`bounded_lines` as text. Raises ValueError, naming file and line, for a line that is too long or not UTF-8."""
    for number, line in bounded_lines(path, limit):
        if line is None:
            raise ValueError(f"{path}:{number}: the line is longer than {limit:,} bytes; is this the right file?")
        try:
            yield number, line.decode()
        except UnicodeDecodeError as problem:
            raise ValueError(f"{path}:{number}: not UTF-8 text ({problem.reason}); save it as UTF-8") from None


def _pass_over(file: BinaryIO) -> None:
    while piece := file.read(_PIECE):
        if (end := piece.find(b"\n")) >= 0:
            file.seek(end + 1 - len(piece), os.SEEK_CUR)
            return


def file_problem(path: str | os.PathLike[str]) -> str | None:
    """What keeps a path from being a file with something in it, as the end of a sentence; None where nothing does.

    One question to the file system; the file is not opened, so a pipe or a device cannot block.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "does not exist"
    except OSError as problem:
        return f"cannot be read ({problem.strerror})"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder, not a file"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return None if status.st_size else "is an empty file"
