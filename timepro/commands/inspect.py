"""Show a training step's groups: the question, the right answer, and every sampled answer with what it earned."""

from __future__ import annotations

import argparse
from pathlib import Path

from timepro.commands.output import add_output, print_json
from timepro.hints import fail
from timepro.names import require_run

EXAMPLES = """\
  timepro inspect runs/sed_grpo --step 40                  the step's groups, in the order of the batch
  timepro inspect runs/sed_grpo --step 40 --sort spread    the groups that taught most, first
  timepro inspect runs/sed_grpo --step 40 --id rl-000123   one clip
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--step", type=int, help="the step (default: the last one)")
    orders = ("batch", "spread", "best", "worst")
    parser.add_argument("--sort", choices=orders, default="batch", help="which come first")
    parser.add_argument("--limit", type=int, default=5, help="groups to show (default: 5; 0: all)")
    parser.add_argument("--id", help="only the group of this sample")
    add_output(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the groups; returns the exit code."""
    try:
        require_run(options.run)
        from timepro.inspection import choose, print_group, read_step
        from timepro.tables import print_lines

        step, groups = read_step(options.run, options.step)
        chosen = choose(groups, options.sort, options.limit, options.id)
    except ValueError as error:
        return fail(str(error), 2)
    if options.json:
        print_json({"step": step, "groups": [group.line for group in chosen]})
        return 0
    flat = sum(group.is_flat for group in groups)
    print_lines([f"step {step}: {len(groups)} groups, {flat} without spread", ""], options.format)
    for group in chosen:
        print_group(group, options.format)
    return 0
