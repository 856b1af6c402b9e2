"""Processes: whether a group of them lives, what a log said last, and ending with the process that started us."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask the kernel to signal this process when the one that started it dies, however it dies.

    Where multiprocessing started it and the parent is gone already, of which the kernel does not tell, the signal comes
    at once.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os.kill(os.getpid(), number)


def group_alive(group: int) -> bool:
    """Whether any process of a process group is left (zombies that nobody has waited for do not count)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def log_tail(path: Path, lines: int = 25) -> str:
    """The last lines of a log file."""
    if not path.is_file():
        return "(no log)"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
