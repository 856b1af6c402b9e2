"""Run a reward through the contract that training relies on: shape, finite values, determinism, order, time.

The reward is a registered name, an entry point, or an import path module:object in this folder or on PYTHONPATH.
Exit code 0: the contract is kept; 1: it is broken; 2: the reward cannot be built.
"""

from __future__ import annotations

import argparse

from timepro.commands.output import add_output, print_json
from timepro.hints import fail

EXAMPLES = """\
  timepro check-reward my_module:my_reward                 a reward of your own
  timepro check-reward eb_f1 --set onset_collar=0.1        a registered one with other parameters
  timepro check-reward adaptive --set main=eb_f1 --set aux.name=miou --task sed
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("reward", help="a registered name, or module:object")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", dest="settings",
        help="a parameter as in an experiment's rewards: section; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--task", action="append", metavar="TASK", help="check for this task only (sed, ag, dac, or module:object)"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=1.0, help="longest time for one group of a reward that is not slow (1)"
    )
    add_output(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Check the reward and print a table; returns the exit code."""
    from rewards import build_reward, contract
    from rewards.sample_values import print_sample_values
    from timepro.config import spec_of
    from timepro.tasks import available_tasks, find_task

    try:
        tasks = [find_task(task, "--task").name for task in options.task or available_tasks()]
        reward = build_reward(spec_of(options.reward, options.settings))
    except ValueError as error:
        return fail(str(error), 2)
    limit = float("inf") if reward.policy.slow else options.max_seconds
    report = contract.check_reward(reward, tasks, limit)
    if options.json:
        print_json({"reward": reward.spec, "kept": report.kept, "checks": list(report.outcomes.values())})
    else:
        contract.print_report(reward, report, options.format)
        print_sample_values(reward, tasks[0], options.format)
    return 0 if report.kept else 1
