"""Run a sweep of experiments/sweeps/: all its trials, finished ones never again, and a table at the end.

Logged in to W&B it is a sweep of W&B's, and more agents may join on other machines; without a login the same file is
expanded and run here.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from timepro.commands.train import default_experiments

EXAMPLES = """\
  timepro sweep sed_seeds                                 every trial, one after the other
  timepro sweep sed_seeds --slots 2 learner.ranks=1       two at a time, with a setting for all of them
  timepro sweep sed_seeds --list                          what would run, and what is finished
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("sweep", help="a file of experiments/sweeps/, without .yaml, or a path")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all trials")
    parser.add_argument("--slots", type=int, default=1, help="trials at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the trials and stop")
    parser.add_argument("--here", action="store_true", help="run it here even where W&B is logged in")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random draws (default: %(default)s)")
    parser.add_argument("--experiments", type=Path, default=default_experiments(), help=argparse.SUPPRESS)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Run the sweep; returns the exit code."""
    return importlib.import_module("trainer.launcher.commands").sweep(options)
