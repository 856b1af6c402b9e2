"""List runs: how far each one is, its scores, and what GRPO gained, with 95 % intervals over the test samples.

A folder may be a run or hold runs, sweeps' trials included. With --seeds, runs whose settings differ in the seed alone
share a row, which shows the mean and the range over seeds; only finished runs count there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timepro.commands.inputs import require_folders
from timepro.commands.output import add_output, print_json
from timepro.hints import fail

EXAMPLES = """\
  timepro runs                                     all runs below runs/
  timepro runs runs/sed_grpo_seeds --seeds         the seeds of a sweep as one row
  timepro runs --seeds --format latex              the same of all runs, for a paper
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument(
        "folders", type=Path, nargs="*", default=[Path("runs")], metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--seeds", action="store_true", help="a row for runs that differ in the seed alone")
    add_output(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the list; returns 0, or 2 for what the user can put right."""
    try:
        require_folders(options.folders)
        from timepro.run_list import find_runs

        found = find_runs(options.folders)
        if options.seeds:
            _print_arms(options, found)
        else:
            _print_runs(options, found)
    except ValueError as error:
        return fail(str(error), 2)
    return 0


def _print_runs(options: argparse.Namespace, found: list[tuple[str, Path]]) -> None:
    from timepro.run_list import print_runs, run_state

    runs = [run_state(name, folder) for name, folder in found]
    if options.json:
        print_json(runs)
        return
    print_runs(", ".join(map(str, options.folders)), runs, options.format)
    for run in runs:
        if run.problem:
            print(f"note: {run.name}: {run.problem}", file=sys.stderr)


def _print_arms(options: argparse.Namespace, found: list[tuple[str, Path]]) -> None:
    from timepro.compare import arms_of_runs, compared, print_comparison
    from timepro.runs import read_summary

    finished = [folder for _, folder in found if read_summary(folder)]
    arms = arms_of_runs(finished)
    if not arms:
        raise ValueError(f"no run of {', '.join(map(str, options.folders))} is finished yet")
    if left := [name for name, folder in found if folder not in finished]:
        print(f"left out, since they are not finished: {', '.join(left)}", file=sys.stderr)
    if options.json:
        print_json(compared(arms))
    else:
        print_comparison(", ".join(map(str, options.folders)), arms, options.format)
