"""The `timepro` command. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

_EPILOG = """\
examples:
  timepro train sed_grpo                                  synthesise, fine-tune, post-train, evaluate
  timepro train sed_grpo trainer.max_steps=5              any key of the experiment, as key=value
  timepro train sed_grpo rewards=eb_f1 name=main_only     another reward, under another run name
  timepro train sed_grpo --resume                         continue an interrupted run
  timepro train sed_grpo --dry-run                        the resolved configuration and the batch plan
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong use, 130 or 143 ended by a signal."""
    parser = argparse.ArgumentParser(
        prog="timepro",
        description="Train audio-language models to say when things happen.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="run an experiment to its final table")
    train.add_argument("experiment", help="a file of experiments/, without .yaml")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the experiment's")
    train.add_argument("--resume", action="store_true", help="continue the run of this name")
    train.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and batch plan, and stop"
    )
    train.add_argument("--experiments", type=Path, default=default_experiments(), help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args(arguments)
    # Overrides may stand behind options too, which argparse takes for strangers.
    strangers = [word for word in rest if word.startswith("-") or "=" not in word]
    if strangers:
        parser.error(f"{' '.join(strangers)}: neither an option nor key=value; see timepro {options.command} --help")
    options.overrides += rest
    # The method's package imports none of the others; the command finds the trainer by name.
    return importlib.import_module("trainer.commands").train(options)


def default_experiments() -> Path:
    """The experiments of this checkout, or of the folder that the command is run in."""
    here = Path("experiments")
    return here if here.is_dir() else Path(__file__).resolve().parent.parent / "experiments"


if __name__ == "__main__":
    sys.exit(main())
