"""What commands say to the user: errors, and what to type from where the user stands.

A hint is to run as it is printed. The environment is rarely on the PATH, and the user rarely stands in the checkout, so
programs and folders are named as they are found from the working folder.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]


def program() -> str:
    """What to type for `timepro`: the bare word where the PATH finds it, else the path of the installed program.

    A process that was started as `python -m timepro.cli`, or without an installed program, is called that way.
    """
    installed = Path(sys.executable).with_name("timepro")
    if Path(sys.argv[0]).name != "cli.py" and installed.is_file():
        return _typed(installed)
    return f"{_typed(Path(sys.executable))} -m timepro.cli"


def command(arguments: str) -> str:
    """A command of this program as the user can run it: "report runs/a" is `.venv/bin/timepro report runs/a`."""
    return f"{program()} {arguments}"


def runnable(text: str) -> str:
    """Lines that begin with `timepro` (help texts' examples) as the user can run them."""
    called = program()
    return re.sub(r"^(\s*)timepro ", lambda found: f"{found[1]}{called} ", text, flags=re.MULTILINE)


def tool(name: str) -> str:
    """What to type for another program of the same environment, such as `wandb`."""
    installed = Path(sys.executable).with_name(name)
    return _typed(installed) if installed.is_file() else name


def module(name: str) -> str:
    """What to type to run a module of this project."""
    return f"{_typed(Path(sys.executable))} -m {name}"


def install(*requirements: str) -> str:
    """What to type to install packages into the same environment."""
    return " ".join([_typed(Path(sys.executable)), "-m pip install", *map(shlex.quote, requirements)])


def install_extra(name: str) -> str:
    """What to type to install an optional part of this project."""
    return f"{_typed(Path(sys.executable))} -m pip install -e {shlex.quote(f'{_seen_from_here(_CHECKOUT)}[{name}]')}"


def make(target: str) -> str:
    """What to type for a target of this checkout's Makefile."""
    return f"make {target}" if Path.cwd() == _CHECKOUT else f"make -C {_seen_from_here(_CHECKOUT)} {target}"


def fail(message: str, code: int) -> int:
    """Say on standard error why a command ends; returns the exit code."""
    print(f"timepro: {message}", file=sys.stderr, flush=True)
    return code


def _typed(file: Path) -> str:
    """The file's name where the PATH leads to it, else the shortest path to it."""
    found = shutil.which(file.name)
    if found and Path(found).absolute() == file.absolute():
        return file.name
    shown = _seen_from_here(file)
    return shlex.quote(shown if "/" in shown else f"./{shown}")


def _seen_from_here(path: Path) -> str:
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
