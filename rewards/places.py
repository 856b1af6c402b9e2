"""Where in the user's own code an exception came from: the file and the line to look at."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import rewards
import timepro

IN_WORKER = "in the worker, at "
_OURS = tuple(str(Path(package.__path__[0])) for package in (rewards, timepro))
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def place_of(error: BaseException) -> str:
    """`FILE:LINE, in FUNCTION: TEXT OF THE LINE`, or nothing where no line is known; files here by their short path.

    It is the innermost line that belongs neither to this project nor to an installed package; else, for a reward that
    is installed itself, the outermost line that is not of this project; else the innermost of all. What the exception
    was raised from counts too, and so does what a worker said of one that it met.
    """
    return full_place_of(error).removeprefix(f"{Path.cwd()}/")


def full_place_of(error: BaseException) -> str:
    """The same with the file's whole path, for another process whose folder may be another one."""
    frames: list[traceback.FrameSummary] = []
    cause: BaseException | None = error
    while cause is not None:
        for note in getattr(cause, "__notes__", ()):
            if note.startswith(IN_WORKER):
                return note.removeprefix(IN_WORKER).splitlines()[0]
        frames += traceback.extract_tb(cause.__traceback__)
        cause = cause.__cause__
    others = [frame for frame in frames if not _lies_in(frame, _OURS)]
    own = [frame for frame in others if not _lies_in(frame, _LIBRARIES)]
    chosen = own[-1:] or others[:1] or frames[-1:]
    return "".join(f"{f.filename}:{f.lineno}, in {f.name}: {f.line or '?'}" for f in chosen)


def _lies_in(frame: traceback.FrameSummary, folders: tuple[str, ...]) -> bool:
    return any(Path(frame.filename).is_relative_to(folder) for folder in folders)
