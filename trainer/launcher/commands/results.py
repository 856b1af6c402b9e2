"""Keep the results of runs as files of experiments/results/, and write the tables of experiments/README.md from them.

A sweep keeps its trials by itself. `keep` is for a run that was made by `timepro train`: where a trial of the sweep has
its settings it becomes that trial, and of a study without a sweep's file it becomes one more run.
`timepro report --results` prints the tables.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from timepro.config import experiment_folders
from timepro.hints import fail
from timepro.names import check_run_name

EXAMPLES = """\
  timepro results keep runs/sed_grpo --sweep sed_grpo_seeds     a run that is trial seed=0 of that sweep
  timepro results keep runs/a runs/b --sweep by_hand            runs of a study without a sweep's file
  timepro results write                                         experiments/README.md anew from all files
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="keep|write")
    keep = commands.add_parser("keep", help="keep the results of finished runs")
    keep.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    keep.add_argument("--sweep", required=True, metavar="NAME", help="the study that they belong to")
    commands.add_parser("write", help="write the tables of experiments/README.md")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Keep results, or write the page; returns 0, or 2 for what the user can put right."""
    try:
        return _write() if options.action == "write" else _keep(options)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)


def _write() -> int:
    from timepro.results.tables import BEGIN, END, write_page

    results = experiment_folders()[0] / "results"
    page = write_page(results)
    if page is None:
        raise ValueError(
            f"{results.parent / 'README.md'} has no place for tables, or {results} is not there: keep a result first, "
            f"and put these two lines into the page: {BEGIN} and {END}"
        )
    print(f"{page}: the tables of {results}")
    return 0


def _keep(options: argparse.Namespace) -> int:
    from timepro.names import require_run
    from timepro.results.keep import Place, keep_run
    from timepro.runs import read_settings
    from trainer.launcher.results import trial_of
    from trainer.launcher.trials import sweep_file

    folders = experiment_folders()
    found = sweep_file(options.sweep, folders)
    if found is None:
        check_run_name(options.sweep)
    for run in options.runs:
        require_run(run)
        if found is not None:
            place = trial_of(found, run, folders)
        else:
            name, seed = run.resolve().name, read_settings(run).get("seed", 0)
            arm = re.sub(r"(?<=.)[-_.,]?seed=?\d+$", "", name)
            place = Place(folders[0] / "results", options.sweep, f"{arm},seed={seed}", arm, 0)
        if place.file.is_file():
            print(f"{place.file} is replaced")
        print(keep_run(run, place))
    return 0
