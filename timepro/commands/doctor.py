"""Say whether a run could start here: packages, machine, GPUs, disk, network, ports. Nothing is loaded or trained.

With NNODES, NODE_RANK and MASTER_ADDR set as for `timepro train`, on every node, it looks at all of them.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from timepro.commands.train import default_experiments

DEFAULT = "sed_grpo"
EXAMPLES = """\
  timepro doctor                                          packages and machine, for the embedded default
  timepro doctor qwen2_5_omni_7b/sed_grpo                 for another experiment
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("experiment", nargs="?", default=DEFAULT, help="what is to be run (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the experiment's")
    parser.add_argument("--experiments", type=Path, default=default_experiments(), help=argparse.SUPPRESS)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; returns 0 where a run could start, 1 where not, 2 on wrong use."""
    if "=" in options.experiment:  # settings of the default experiment
        options.overrides.insert(0, options.experiment)
        options.experiment = DEFAULT
    packages = importlib.import_module("timepro.environment.doctor").main()
    return packages or importlib.import_module("trainer.launcher.commands").doctor(options)
