"""`timepro train` and `timepro sweep`: from command-line options to runs, and from errors to exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from timepro.config import load_experiment, to_yaml
from timepro.sweeps import Sweep, expand, read_sweep, trial_name


def train(options: argparse.Namespace) -> int:
    """Run an experiment.

    Returns:
        0 done, 1 a process failed, 2 wrong use, 128 + signal where a signal ended it.
    """
    # Said to every process started from here on: nothing is fetched, and nobody's progress bars but ours.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from trainer.launcher.checks import check, describe
    from trainer.launcher.nodes.follower import follow
    from trainer.launcher.nodes.node import Node, node_count
    from trainer.launcher.pipeline import run_experiment
    from trainer.launcher.signals import Interrupted
    from trainer.settings.experiment import ExperimentConfig

    try:
        name, overrides = named_run(options.experiment, options.overrides, options.sweep)
        config = load_experiment(name, overrides, ExperimentConfig, options.experiments)
        if options.dry_run:
            check(config, node_count())
            print(to_yaml(config))
            print(describe(config, node_count()))
            return 0
        node = Node.from_environment()
        if node.rank:
            check(config, node.count)
            follow(config, node)
        else:
            run_experiment(config, options.resume, node)
        return 0
    except (ValueError, FileNotFoundError) as error:
        return _fail(str(error), 2)
    except Interrupted as stop:
        return _fail(f"stopped by {stop}; the same command with --resume continues this run", 128 + stop.number)
    except (RuntimeError, OSError) as error:
        return _fail(str(error), 1)


def doctor(options: argparse.Namespace) -> int:
    """Examine the machine, or all nodes.

    Returns:
        0 a run could start, 1 it could not, 2 wrong use.
    """
    from trainer.launcher.doctor import doctor as examine_nodes
    from trainer.launcher.nodes.node import Node
    from trainer.settings.experiment import ExperimentConfig

    try:
        config = load_experiment(options.experiment, options.overrides, ExperimentConfig, options.experiments)
        return 0 if examine_nodes(config, Node.from_environment()) else 1
    except ValueError as error:
        return _fail(str(error), 2)


def named_run(experiment: str, overrides: list[str], sweep: str | None) -> tuple[str, list[str]]:
    """The experiment and its overrides; a sweep's trial is named by what makes it differ from the others."""
    words = [experiment, *overrides]
    named = [word for word in words if word.startswith("experiment=")]
    if named:
        experiment = named[-1].partition("=")[2]
    rest = [word for word in words[0 if named else 1 :] if word not in named]
    return experiment, [*rest, f"name={sweep}/{trial_name(words)}", f"wandb.group={sweep}"] if sweep else rest


def sweep(options: argparse.Namespace) -> int:
    """Run a sweep.

    Returns:
        0 done, 1 a trial failed, 2 wrong use, 128 + signal where a signal ended it.
    """
    from trainer.launcher.compare import print_comparison, read_arms
    from trainer.launcher.nodes.node import node_count
    from trainer.launcher.signals import Interrupted
    from trainer.launcher.sweep import is_finished, run_sweep, trial_folder

    path = Path(options.sweep)
    path = path if path.suffix == ".yaml" else options.experiments / "sweeps" / f"{options.sweep}.yaml"
    try:
        if node_count() > 1:
            raise ValueError("a sweep's trials run on one node each; unset NNODES and start agents on every node")
        if options.slots < 1:
            raise ValueError(f"--slots is {options.slots}; it must be at least 1")
        found = read_sweep(path)
        if not options.here and not options.list and online(found, options.slots):
            return 0
        trials = expand(found, options.seed)
        folders = [trial_folder(options.runs, found, trial, options.overrides) for trial in trials]
        if options.list:
            for folder in folders:
                print(f"{'finished' if is_finished(folder) else 'to run  '}  {folder.name}")
            return 0
        failed = run_sweep(found, trials, options.runs, options.slots, options.overrides)
    except (ValueError, FileNotFoundError) as error:
        return _fail(str(error), 2)
    except Interrupted as stop:
        return _fail(f"stopped by {stop}; the same command goes on with what is left", 128 + stop.number)
    finished = [(trial, folder) for trial, folder in zip(trials, folders, strict=True) if is_finished(folder)]
    if finished:
        print_comparison(found.name, read_arms(*zip(*finished, strict=True)))
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    return _fail(f"{len(failed)} of {len(trials)} trials failed", 1) if failed else 0


def online(found: Sweep, slots: int) -> bool:
    """Make it a sweep of W&B's and run agents here, where W&B is logged in; whether that was done."""
    from trainer.settings.wandb import WandbConfig, wandb_mode

    config = WandbConfig()
    if wandb_mode(config) != "online":
        return False
    import subprocess

    import wandb

    project = str(found.raw.get("project") or config.project)
    name = wandb.sweep({"name": found.name, **found.raw}, project=project)
    api = wandb.Api()
    agent = [
        sys.executable,
        "-m",
        "wandb",
        "agent",
        f"{found.raw.get('entity') or api.default_entity}/{project}/{name}",
    ]
    print(f"more agents, on any machine with this checkout: wandb agent {agent[-1]}")
    agents = [subprocess.Popen(agent) for _ in range(slots)]
    if any([process.wait() for process in agents]):
        raise ValueError("a W&B agent ended with an error; see above")
    return True


def _fail(message: str, code: int) -> int:
    print(f"timepro: {message}", file=sys.stderr, flush=True)
    return code
