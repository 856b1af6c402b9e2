"""The trials of a sweep as runs: their commands, folders and configurations, and what is wrong with one of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from timepro.config import by_key, load_experiment
from timepro.sweeps import (
    ARGUMENTS,
    EXPERIMENT,
    NEVER_NAMED,
    Sweep,
    Trial,
    find_sweep,
    naming_words,
    read_sweep,
    trial_name,
)
from trainer.launcher.runfolder import is_finished_with
from trainer.settings.experiment import ExperimentConfig


def trial_folder(runs: Path, sweep: Sweep, trial: Trial, extra: Sequence[str]) -> Path:
    """Where the trial's run is kept.

    Args:
        extra: `key=value` arguments that every trial gets.
    """
    return runs / sweep.name / trial_name(naming_words([*trial.arguments, *extra], sweep))


def trial_command(sweep: Sweep, trial: Trial, runs: Path, extra: Sequence[str]) -> list[str]:
    """The command line of one trial, from its start.

    `timepro` means the one that runs the sweep; `${env}`, `${program}` and `${interpreter}` what they mean to W&B.
    """
    name = f"name={sweep.name}/{trial_folder(runs, sweep, trial, extra).name}"
    here = {
        "timepro": [sys.executable, "-m", "timepro.cli"],
        "${interpreter}": [sys.executable],
        "${env}": ["/usr/bin/env"],
        "${program}": [str(sweep.raw.get("program", ""))],
        ARGUMENTS: [*trial.arguments, *extra, name, f"runs={runs}"],
    }
    return [word for part in sweep.command for word in here.get(part, [part])]


def trial_configs(
    sweep: Sweep, trials: Sequence[Trial], runs: Path, extra: Sequence[str], folders: Sequence[Path]
) -> list[ExperimentConfig]:
    """The configuration of every trial; none where the sweep's command is not `timepro train`.

    Raises:
        ValueError: an unknown experiment, key or value, with the trial's name.
    """
    if sweep.schema is None:
        return []
    configs = []
    for trial in trials:
        command = trial_command(sweep, trial, runs, extra)
        words = command[command.index("train") + 1 :]
        named = words.index("--sweep") + 1 if "--sweep" in words else -1
        arguments = [word for i, word in enumerate(words) if not word.startswith("-") and i != named]
        try:
            name, overrides = named_run(arguments[0], arguments[1:], sweep.name, folders)
            configs.append(load_experiment(name, overrides, ExperimentConfig, folders))
        except ValueError as error:
            name = trial_folder(runs, sweep, trial, extra).name
            raise ValueError(f"{sweep.path}: trial {name}: {error}") from error
    return configs


def distinct(trials: Sequence[Trial], configs: Sequence[ExperimentConfig]) -> list[int]:
    """Of trials that come to the same settings, however they are written, the first; as indices in order."""
    seen: dict[str, int] = {}
    for index, config in enumerate(configs):
        settings = {key: value for key, value in by_key(config).items() if key not in NEVER_NAMED}
        seen.setdefault(json.dumps(settings, sort_keys=True, default=str), index)
    return list(seen.values()) if configs else list(range(len(trials)))


def check_trials(sweep: Sweep, folders: Sequence[Path], configs: Sequence[ExperimentConfig]) -> None:
    """Look at every trial before the first one starts.

    Raises:
        ValueError: a trial that could not run, or one that is finished with other settings.
    """
    from trainer.launcher.checks import check

    for folder, config in zip(folders, configs, strict=bool(configs)):
        try:
            if not is_finished_with(folder, config):
                check(config)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"{sweep.path}: trial {folder.name}: {error}") from error


def named_run(
    experiment: str, overrides: Sequence[str], sweep: str | None, folders: Sequence[Path]
) -> tuple[str, list[str]]:
    """The experiment and its overrides; a sweep's trial is named by what tells it from the sweep's others.

    Args:
        experiment: its name, or any `key=value` where the overrides hold `experiment=NAME`.
        sweep: the sweep's name or file.
        folders: of experiments, where the sweep's file is looked for. Where it is not there (an agent of a sweep that
            was made elsewhere), every setting on the command line counts for the name.

    Raises:
        ValueError: no experiment, or a sweep's file with a mistake.
    """
    words = [experiment, *overrides]
    named = [word for word in words if word.startswith(f"{EXPERIMENT}=")]
    if named:
        experiment = named[-1].partition("=")[2]
        words = [word for word in words if word not in named]
    elif "=" in experiment:
        raise ValueError(f"{experiment!r} is a setting; name the experiment first, or as {EXPERIMENT}=NAME")
    else:
        words = words[1:]
    if sweep is None:
        return experiment, words
    found = sweep_file(sweep, folders)
    group = found.name if found else sweep
    given = {word.partition("=")[0] for word in words}
    if "name" not in given:
        words.append(f"name={group}/{trial_name(naming_words([*named, *words], found))}")
    if "wandb.group" not in given:
        words.append(f"wandb.group={group}")
    return experiment, words


def sweep_file(name: str, folders: Sequence[Path]) -> Sweep | None:
    """A sweep by its name or file; None where there is no sweep of that name here.

    Raises:
        ValueError: no such file, or a sweep with a mistake.
    """
    try:
        path = find_sweep(name, folders)
    except ValueError:
        if name.endswith((".yaml", ".yml")):
            raise
        return None
    return read_sweep(path, ExperimentConfig)
