"""Run an experiment of experiments/ to its final table. Stages that an earlier run has finished are not repeated."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

EXAMPLES = """\
  timepro train sed_grpo                                  synthesise, fine-tune, post-train, evaluate
  timepro train sed_grpo grpo.max_steps=5              any key of the experiment, as key=value
  timepro train sed_grpo rewards=eb_f1 name=main_only     another reward, under another run name
  timepro train sed_grpo --resume                         continue an interrupted run
  timepro train sed_grpo --dry-run                        the resolved configuration and the batch plan
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("experiment", help="a file of experiments/, without .yaml (or experiment=NAME)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the experiment's")
    parser.add_argument("--resume", action="store_true", help="continue the run of this name")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and batch plan, and stop"
    )
    parser.add_argument("--sweep", metavar="NAME", help="the run is a trial of this sweep, and named by its key=values")
    parser.add_argument("--experiments", type=Path, default=default_experiments(), help=argparse.SUPPRESS)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Run the experiment; returns the exit code."""
    # The method's package imports none of the others; the command finds the trainer by name.
    return importlib.import_module("trainer.launcher.commands").train(options)


def default_experiments() -> Path:
    """The experiments of this checkout, or of the folder that the command is run in."""
    here = Path("experiments")
    return here if here.is_dir() else Path(__file__).resolve().parents[2] / "experiments"
