"""Say whether a run could start here: packages, machine, GPUs, disk, network, ports. Nothing is loaded or trained.

With NNODES, NODE_RANK and MASTER_ADDR set as for `timepro train`, on every node, it looks at all of them.
"""

from __future__ import annotations

import argparse

from timepro.commands.output import add_output, print_json
from timepro.config import experiment_folders, load_experiment
from timepro.hints import fail
from trainer.settings.experiment import ExperimentConfig

DEFAULT = "sed_grpo"
EXAMPLES = """\
  timepro doctor                                          packages and machine, for the embedded default
  timepro doctor qwen2_5_omni_7b/sed_grpo                 for another experiment
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("experiment", nargs="?", default=DEFAULT, help="what is to be run (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the experiment's")
    add_output(parser)
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Examine the machine, or all nodes.

    Returns:
        0 a run could start, 1 it could not, 2 wrong use.
    """
    name, overrides = options.experiment, options.overrides
    if "=" in name:  # settings of the default experiment
        name, overrides = DEFAULT, [name, *overrides]
    try:
        config = load_experiment(name, overrides, ExperimentConfig, experiment_folders())
        from trainer.launcher.nodes.node import Node

        node = Node.from_environment()
        from timepro.environment.doctor import examine, print_environment

        packages = examine()
        if not options.json and print_environment(packages, options.format):
            return 1
        if packages.broken:
            print_json({"packages": packages, "nodes": {}})
            return 1
        from trainer.launcher.doctor import doctor as examine_nodes
        from trainer.launcher.doctor import print_findings

        found = examine_nodes(config, node)
        if options.json:
            print_json({"packages": packages, "nodes": found})
        else:
            print_findings(found, options.format)
        return 1 if any(one.state == "fail" for findings in found.values() for one in findings) else 0
    except ValueError as error:
        return fail(str(error), 2)
