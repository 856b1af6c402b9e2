"""What commands say to the user: errors, and how to call this program from where the user stands."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """What to type for `timepro`: the bare word where the PATH finds it, else the path of the installed script.

    A process that was started as `python -m timepro.cli`, or without an installed script, is called that way.
    """
    script = Path(sys.executable).with_name("timepro")
    if Path(sys.argv[0]).name != "cli.py" and script.is_file():
        return _typed("timepro", script)
    return f"{_typed('python', Path(sys.executable))} -m timepro.cli"


def command(arguments: str) -> str:
    """A command of this program as the user can run it: "report runs/a" is `.venv/bin/timepro report runs/a`."""
    return f"{program()} {arguments}"


def runnable(text: str) -> str:
    """Lines that begin with `timepro` (help texts' examples) as the user can run them."""
    called = program()
    return re.sub(r"^(\s*)timepro ", lambda found: f"{found[1]}{called} ", text, flags=re.MULTILINE)


def fail(message: str, code: int) -> int:
    """Say on standard error why a command ends; returns the exit code."""
    print(f"timepro: {message}", file=sys.stderr, flush=True)
    return code


def _typed(word: str, file: Path) -> str:
    """The word where the PATH leads to the file, else the shortest path to it."""
    found = shutil.which(word)
    if found and Path(found).absolute() == file.absolute():
        return word
    whole, here = file.absolute(), Path.cwd()
    shown = str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
    return shlex.quote(shown if "/" in shown else f"./{shown}")
