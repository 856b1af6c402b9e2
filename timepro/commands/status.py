"""Show what a run is doing: stage, step, seconds by phase, speed, when it ends; its nodes, processes, memory and cards.

It reads the files that the run's processes write every few seconds, so it can be asked from any machine that sees the
run's folder. Of a run that has finished or died it shows how far it came and when it gave its last sign of life.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from timepro.commands.output import FORMATS, print_json
from timepro.hints import fail

EXAMPLES = """\
  timepro status                          the newest run below runs/
  timepro status runs/sed_grpo --watch    the same again every 2 seconds, until Ctrl-C or the end of the run
  timepro status --format json            one JSON object, for a program
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a run's folder; default: the newest of runs/")
    parser.add_argument(
        "--watch", type=float, nargs="?", const=2.0, metavar="SECONDS",
        help="show it again and again until the run ends (every %(const)s s unless said otherwise)",
    )  # fmt: skip
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--format", choices=(*FORMATS, "json"), default=FORMATS[0], help="default: %(default)s")
    output.add_argument("--json", action="store_const", const="json", dest="format", help="as --format json")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the status; returns 0, or 2 for what the user can put right."""
    from timepro.status.read import newest_run

    try:
        if options.watch is not None and options.watch <= 0:
            raise ValueError(f"--watch {options.watch:g}: give a number of seconds above 0")
        folder = options.run or newest_run(Path("runs"))
        if options.watch is None:
            _print(_status(folder), options.format)
        else:
            _watch(folder, options.watch, options.format)
    except ValueError as error:
        return fail(str(error), 2)
    return 0


def _status(folder: Path) -> Any:
    from timepro.status.read import status_of

    return status_of(folder)


def _print(status: Any, form: str) -> None:
    from timepro.status.show import print_status

    if form == "json":
        print_json(status)
    else:
        print_status(status, form)
    sys.stdout.flush()


def _watch(folder: Path, every_s: float, form: str) -> None:
    """Print again and again: in place on a terminal, one below the other elsewhere."""
    in_place = form == "text" and sys.stdout.isatty()
    while True:
        status = _status(folder)
        if in_place:
            print("\033[H\033[2J", end="")  # to the upper left corner, and all below is cleared
        _print(status, form)
        if status.state in ("finished", "stopped"):
            return
        time.sleep(every_s)
