"""Show the settings in which runs differ, by dotted key, and whether they are of the same code."""

from __future__ import annotations

import argparse
from pathlib import Path

from timepro.commands.output import add_output, print_json
from timepro.hints import fail
from timepro.names import require_run

EXAMPLES = """\
  timepro diff runs/sed_grpo runs/mine                what was changed between the two
  timepro diff runs/a runs/b runs/c --format markdown
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("first", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("others", type=Path, nargs="+", metavar="RUN", help="the runs to compare it with")
    add_output(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the differences; returns 0, or 2 for what the user can put right."""
    runs: list[Path] = [options.first, *options.others]
    try:
        for folder in runs:
            require_run(folder)
        from timepro.run_settings import differences

        found = differences(runs)
    except ValueError as error:
        return fail(str(error), 2)
    if options.json:
        print_json({"runs": [str(folder) for folder in runs], **found})
        return 0
    from timepro.run_settings import print_differences

    print_differences([str(folder) for folder in runs], found, options.format)
    return 0
