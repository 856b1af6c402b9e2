"""Run a sweep of experiments/sweeps/: all its trials, finished ones never again, and a table at the end.

A finished trial leaves a small file in experiments/results/SWEEP/. A trial with such a file, of the same settings, is
not run again, on whatever machine it was made: commit the files, and a study goes on elsewhere.

Logged in to W&B it is a sweep of W&B's, and more agents may join on other machines; without a login the same file is
expanded and run here. Every trial is checked before the first one starts, unless W&B draws them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timepro.commands.output import add_output, print_json
from timepro.config import Override, experiment_folders
from timepro.hints import fail, tool
from timepro.results.files import Result
from timepro.results.keep import Place, place_of, results_folder
from timepro.sweeps import ARGUMENTS, EXPERIMENT, NEVER_NAMED, Sweep, Trial, expand, find_sweep, read_sweep
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.wandb import WandbConfig, wandb_mode

EXAMPLES = """\
  timepro sweep sed_grpo_seeds                                 every trial, one after the other
  timepro sweep sed_grpo_seeds --slots 2 learner.ranks=1       two at a time, with a setting for all of them
  timepro sweep sed_grpo_seeds --list                          what would run, and what is finished
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("sweep", help="a file of experiments/sweeps/, without .yaml, or a path")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all trials")
    parser.add_argument("--slots", type=int, default=1, help="trials at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the trials and stop")
    parser.add_argument("--here", action="store_true", help="run it here even where W&B is logged in")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default: %(default)s)")
    parser.add_argument(
        "--fresh", action="store_true", help="do not count kept results (experiments/results/), only runs in --runs"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random draws (default: %(default)s)")
    add_output(parser)
    parser.set_defaults(command=sweep)


def sweep(options: argparse.Namespace) -> int:
    """Run a sweep.

    Returns:
        0 done, 1 a trial or an agent failed, 2 wrong use, 128 + signal where a signal ended it.
    """
    try:
        if options.slots < 1:
            raise ValueError(f"--slots is {options.slots}; it must be at least 1")
        folders = experiment_folders()
        found = read_sweep(find_sweep(options.sweep, folders), ExperimentConfig)
        check_settings(found, options.overrides)
        return _run(found, options, folders)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)


def check_settings(found: Sweep, overrides: Sequence[str]) -> None:
    """Refuse settings for all trials that would make them one, or that they cannot have.

    Raises:
        ValueError: naming the setting.
    """
    for word in overrides:
        key = word.partition("=")[0].strip()
        if key in found.raw["parameters"]:
            raise ValueError(f"{word}: {key} is a parameter of {found.path}; change its values there")
        if key == "runs":
            raise ValueError(f"{word}: the folder of a sweep's runs is given as --runs {word.partition('=')[2]}")
        if key.split(".")[0] in NEVER_NAMED and key.startswith("name"):
            raise ValueError(f"{word}: a sweep names its trials itself")
        if found.schema is not None and key != EXPERIMENT:
            Override.parse(word, found.schema)


def _run(found: Sweep, options: argparse.Namespace, folders: Sequence[Path]) -> int:
    from trainer.launcher.nodes.node import node_count
    from trainer.launcher.trials import check_trials

    if node_count() > 1:
        raise ValueError("a sweep's trials run on one node each; unset NNODES and start agents on every node")
    mode = "offline" if options.here or options.list else wandb_mode(wandb_settings(options.overrides))
    if mode == "online" and found.raw["method"] != "grid":
        return _online(found, options)  # whose server draws the trials
    study = _study(found, options, folders)
    if options.list:
        _print_list(study, options)
        return 0
    check_trials(found, study.folders, study.configs)
    if mode == "online":
        return _online(found, options)
    from trainer.launcher.signals import Interrupted
    from trainer.launcher.sweep import run_sweep

    waiting = [trial for trial, kept in zip(study.trials, study.kept, strict=True) if kept is None]
    if n := len(study.trials) - len(waiting):
        print(f"{n} of {len(study.trials)} trials have a result in {results_folder(found) / found.name}")
    try:
        failed = run_sweep(found, waiting, options.runs, options.slots, options.overrides)
    except Interrupted as stop:
        return fail(f"stopped by {stop}; the same command goes on with what is left", 128 + stop.number)
    _print_end(study, options, failed)
    return fail(f"{len(failed)} of {len(study.trials)} trials failed", 1) if failed else 0


@dataclass(frozen=True)
class Study:
    """A sweep that is run here: by trial its run's folder, its configuration (none of another program's), its place
    among the kept results, and the one that stands for it."""

    sweep: Sweep
    trials: list[Trial]
    folders: list[Path]
    configs: list[ExperimentConfig]
    places: list[Place]
    kept: list[Result | None]


def _study(found: Sweep, options: argparse.Namespace, folders: Sequence[Path]) -> Study:
    from trainer.launcher.results import kept_result
    from trainer.launcher.trials import distinct, trial_configs, trial_folder

    trials = expand(found, options.seed)
    configs = trial_configs(found, trials, options.runs, options.overrides, folders)
    chosen = distinct(trials, configs)
    if len(chosen) < len(trials):
        print(f"{len(trials) - len(chosen)} of {len(trials)} trials are left out: others have the same settings")
        trials, configs = [trials[i] for i in chosen], [configs[i] for i in chosen]
    places = [place_of(found, [*trial.arguments, *options.overrides]) for trial in trials]
    kept: list[Result | None] = [None] * len(trials)
    if configs and not options.fresh:
        kept = [kept_result(place, config) for place, config in zip(places, configs, strict=True)]
    runs = [trial_folder(options.runs, found, trial, options.overrides) for trial in trials]
    return Study(found, trials, runs, configs, places, kept)


def _print_list(study: Study, options: argparse.Namespace) -> None:
    from timepro.results.tables import code_state
    from trainer.launcher.runfolder import is_finished

    rows = [
        {
            "trial": place.trial, "finished": is_finished(folder), "kept": kept is not None,
            "code": code_state(kept) if kept else "",
        }
        for place, folder, kept in zip(study.places, study.folders, study.kept, strict=True)
    ]  # fmt: skip
    if options.json:
        print_json(rows)
        return
    for row in rows:
        state = "kept" if row["kept"] else "finished" if row["finished"] else "to run"
        print(f"{state:8}  {row['trial']}{', ' + str(row['code']) if row['code'] else ''}")


def _print_end(study: Study, options: argparse.Namespace, failed: Mapping[str, str]) -> None:
    """Keep what is finished here and not kept yet, and print the study's tables."""
    from timepro.compare import compared, print_comparison, read_arms
    from timepro.results.files import read_result
    from timepro.results.keep import keep_run
    from timepro.results.tables import arms_of_results, tables_of
    from timepro.tables import print_lines, print_table
    from trainer.launcher.runfolder import is_finished

    name, form = study.sweep.name, options.format
    both = list(zip(study.trials, study.folders, strict=True))
    finished = [(trial, folder) for trial, folder in both if is_finished(folder)]
    if study.configs:
        for place, folder, kept in zip(study.places, study.folders, study.kept, strict=True):
            if kept is None and is_finished(folder):
                keep_run(folder, place)
        results = [read_result(place.file) for place in study.places if place.file.is_file()]
        arms, tables = arms_of_results(results), tables_of(name, results, mark_changed=True)
    else:
        arms, tables = read_arms([trial for trial, _ in finished], [folder for _, folder in finished]), []
    if options.json:
        print_json({"sweep": name, "tasks": compared(arms), "failed": failed})
        return
    for table in tables:
        print_table(table, form)
    if not study.configs:
        print_comparison(name, arms, form)
    print_lines([f"failed: {trial}: {why}" for trial, why in failed.items()], form)


def wandb_settings(overrides: Sequence[str]) -> WandbConfig:
    """Where the settings for all trials put a sweep.

    Raises:
        ValueError: an unknown key of `wandb.*`, or a value of another type.
    """
    given = [Override.parse(word, ExperimentConfig) for word in overrides if word.startswith("wandb.")]
    return WandbConfig(**{setting.key[-1]: setting.value for setting in given})


def _online(found: Sweep, options: argparse.Namespace) -> int:
    """Make it a sweep of W&B's and run agents here.

    Returns:
        0 done, 1 an agent ended with an error.
    """
    import wandb

    given = [ARGUMENTS, *options.overrides, f"runs={options.runs}"]
    command = [word for part in found.command for word in (given if part == ARGUMENTS else [part])]
    project = str(found.raw.get("project") or wandb_settings(options.overrides).project)
    name = wandb.sweep({"name": found.name, **found.raw, "command": command}, project=project)
    entity = found.raw.get("entity") or wandb.Api().default_entity
    agent = [sys.executable, "-m", "wandb", "agent", f"{entity}/{project}/{name}"]
    print(f"more agents, on any machine with this checkout: {tool('wandb')} agent {agent[-1]}")
    agents = [subprocess.Popen(agent) for _ in range(options.slots)]
    if any([process.wait() for process in agents]):
        return fail("a W&B agent ended with an error; see above", 1)
    return 0
