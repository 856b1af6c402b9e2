"""Say what a run will need and take before anything is loaded, and what would fit where it does not.

From the checkpoint's config.json, the manifests' durations and the settings: tokens of a prompt, a row and a step;
memory of every card by part; bytes of a weight sync; main memory of a node; seconds of a step by assumed rates. A
checkpoint that is not there yet is planned by its published configuration where its folder is called like one
(checkpoints/qwen2_5_omni_7b), and clips whose manifest is not there yet are taken as 10 s.

Cards are this machine's; where there are none, or with --cards and --gb, those that you name. Memory is counted at the
worst moment with answers as long as grpo.groups.max_tokens allows. What is called assumed is an assumption:
seconds may be off by a factor of two, memory should not be off by more than 15 %.
"""

from __future__ import annotations

import argparse

from timepro.commands.output import add_output, print_json
from timepro.config import experiment_folders, load_experiment
from timepro.hints import fail
from timepro.tables import print_lines, print_table
from trainer.settings.experiment import ExperimentConfig

DEFAULT = "sed_grpo"
EXAMPLES = """\
  timepro plan qwen2_5_omni_7b/sed_grpo                        on this machine's cards, or the eight that it names
  timepro plan qwen2_5_omni_3b/sed_grpo --cards 1 --gb 80      on one card of 80 GB
  timepro plan qwen2_5_omni_7b/sed_grpo lora.rank=0 --gb 40    all weights trained, on smaller cards
  timepro plan qwen2_audio_7b/dac_grpo --seconds 30            with clips of 30 s
  timepro plan --table                                         1 to 16 cards, all families, as in experiments/README.md
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("experiment", nargs="?", default=DEFAULT, help="what is to be run (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the experiment's")
    parser.add_argument("--cards", type=int, default=0, metavar="N", help="cards of each node")
    parser.add_argument("--gb", type=float, default=0.0, metavar="GB", help="memory of each card, as it is sold")
    parser.add_argument(
        "--nodes", type=int, default=0, metavar="N", help="nodes (default: NNODES, or as its roles want)"
    )
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="length of every clip")
    parser.add_argument("--table", action="store_true", help="what fits on which cards, for all published checkpoints")
    add_output(parser)
    parser.set_defaults(command=plan)


def plan(options: argparse.Namespace) -> int:
    """Plan a run.

    Returns:
        0 it fits, 1 it does not, 2 wrong use.
    """
    try:
        if options.table:
            return _print_table(options)
        if min(options.cards, options.gb, options.nodes, options.seconds) < 0:
            raise ValueError("--cards, --gb, --nodes and --seconds must be above 0")
        name, overrides = options.experiment, options.overrides
        if "=" in name:  # settings of the default experiment
            name, overrides = DEFAULT, [name, *overrides]
        config = load_experiment(name, overrides, ExperimentConfig, experiment_folders())
        return _print_plan(config, options)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)


def _print_plan(config: ExperimentConfig, options: argparse.Namespace) -> int:
    from trainer.launcher.plan.fit import nearest
    from trainer.launcher.plan.machine import machine_of
    from trainer.launcher.plan.plan import plan_of
    from trainer.launcher.plan.show import as_json, card_table, closing, memory_table, opening, step_table, token_table

    machine = machine_of(config, options.cards, options.gb, options.nodes)
    found = plan_of(config, machine, options.seconds)
    changes = nearest(config, machine, options.seconds) if found.problems else []
    if options.json:
        print_json(as_json(found, changes))
        return 1 if found.problems else 0
    print_lines(opening(found), options.format)
    for table in (token_table(found), memory_table(found), card_table(found), step_table(found)):
        if table is not None:
            print_table(table, options.format)
    print_lines(closing(found, changes), options.format)
    return 1 if found.problems else 0


def _print_table(options: argparse.Namespace) -> int:
    from trainer.launcher.plan.overview import overview, overview_table

    rows = overview()
    if options.json:
        print_json(rows)
    else:
        print_table(overview_table(rows), options.format)
    return 0
