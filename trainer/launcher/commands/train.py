"""Run an experiment of experiments/ to its final table. Stages that an earlier run has finished are not repeated.

The experiment may also be a YAML file anywhere; its `base:` is looked for beside it and among the built-in ones.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from timepro.commands.output import add_output, print_json
from timepro.config import by_key, experiment_folders, load_experiment, to_yaml
from timepro.hints import fail
from trainer.launcher.trials import named_run, sweep_file
from trainer.settings.experiment import ExperimentConfig

EXAMPLES = """\
  timepro train sed_grpo                                  synthesise, fine-tune, post-train, evaluate
  timepro train sed_grpo grpo.max_steps=5                 any key of the experiment, as key=value
  timepro train sed_grpo rewards=eb_f1 name=main_only     another reward, under another run name
  timepro train sed_grpo --resume                         continue an interrupted run
  timepro train sed_grpo --dry-run                        the resolved configuration and the batch plan
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("experiment", help="a file of experiments/, without .yaml, or a path (or experiment=NAME)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the experiment's")
    parser.add_argument("--resume", action="store_true", help="continue the run of this name")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and batch plan, and stop"
    )
    parser.add_argument(
        "--sweep", metavar="NAME", help="the run is a trial of this sweep, named by the key=values that vary in it"
    )
    add_output(parser)
    parser.set_defaults(command=train)


def train(options: argparse.Namespace) -> int:
    """Run an experiment.

    Returns:
        0 done, 1 a process failed, 2 wrong use, 128 + signal where a signal ended it.
    """
    # Said to every process started from here on: nothing is fetched, and nobody's progress bars but ours.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        folders = experiment_folders()
        name, overrides = named_run(options.experiment, options.overrides, options.sweep, folders)
        config = load_experiment(name, overrides, ExperimentConfig, folders)
        return dry_run(config, options.json) if options.dry_run else run(config, options)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)


def dry_run(config: ExperimentConfig, as_json: bool = False) -> int:
    """Check an experiment, and print its configuration and what it would do.

    Raises:
        ValueError: it could not run.
    """
    from trainer.launcher.checks import check, describe
    from trainer.launcher.nodes.node import node_count

    check(config, node_count())
    plan = describe(config, node_count())
    if as_json:
        print_json({"settings": by_key(config), "plan": plan.splitlines()})
    else:
        print(to_yaml(config))
        print(plan)
    return 0


def run(config: ExperimentConfig, options: argparse.Namespace) -> int:
    """Run an experiment on this node.

    A trial of a sweep that is finished already, with the same settings, is not run again.

    Raises:
        ValueError: a setting, or data, that it could not run with.
    """
    from trainer.launcher.checks import check
    from trainer.launcher.nodes.node import Node
    from trainer.launcher.runfolder import is_finished_with

    node = Node.from_environment()
    folder = Path(config.runs) / config.name
    if options.sweep is not None and is_finished_with(folder, config):
        print(f"{folder} is finished already")
        return 0
    check(config, node.count)
    _make_runs_folder(config)
    from trainer.launcher.nodes.follower import follow
    from trainer.launcher.pipeline import run_experiment
    from trainer.launcher.signals import Interrupted

    try:
        if node.rank:
            follow(config, node)
        else:
            run_experiment(config, options.resume, node, "json" if options.json else options.format)
            return 0 if options.sweep is None else keep(options, folder)
        return 0
    except Interrupted as stop:
        return fail(f"stopped by {stop}; the same command with --resume continues this run", 128 + stop.number)
    except FileNotFoundError:
        raise
    except (RuntimeError, OSError) as error:
        return fail(str(error), 1)


def keep(options: argparse.Namespace, run: Path) -> int:
    """Keep the result of a finished trial of a sweep whose file is at hand; returns 0, or 1 where that fails."""
    from trainer.launcher.results import keep_trial

    found = sweep_file(options.sweep, experiment_folders())
    if found is None:
        return 0
    try:
        keep_trial(found, [options.experiment, *options.overrides], run)
    except ValueError as error:
        return fail(str(error), 1)
    return 0


def _make_runs_folder(config: ExperimentConfig) -> None:
    """Make the folder of runs, before anything slow is imported.

    Raises:
        ValueError: it cannot be made, or not be written to.
    """
    runs = Path(config.runs)
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"runs={runs} cannot be made: {error.strerror or error}; give another folder") from None
    if not os.access(runs, os.W_OK | os.X_OK):
        raise ValueError(f"runs={runs} cannot be written to; give another folder")
