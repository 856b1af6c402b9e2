"""What a worker is doing while it starts, as lines of its log: vLLM itself says nothing for a minute or more."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rollout.alive import FILE_VARIABLE

_MARK = "timepro: this worker is "
_TAIL = 1 << 16  # bytes of the log that are looked at


def say_phase(what: str) -> None:
    """Note what begins, such as "importing vLLM"; nothing in a process that no launcher has started."""
    if FILE_VARIABLE in os.environ:
        print(f"{_MARK}{what}", file=sys.stderr, flush=True)


def read_phase(log: Path) -> str:
    """What the worker of a log was doing last; empty where it has not said anything."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    found = [line.partition(_MARK)[2] for line in lines if _MARK in line]
    return found[-1].strip() if found else ""
