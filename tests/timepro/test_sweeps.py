"""Sweeps in W&B's format: what a file stands for, and which files are refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import yaml

from timepro.config import load_experiment
from timepro.sweeps import ARGUMENTS, PLACES, expand, read_sweep, trial_name
from trainer.launcher.commands import named_run
from trainer.launcher.sweep import trial_command, trial_folder
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
COMMAND = ["${env}", "timepro", "train", "sed_grpo", "--sweep", "s", ARGUMENTS]


def written(folder: Path, **changes) -> Path:
    raw = {"method": "grid", "command": COMMAND, "parameters": {"seed": {"values": [0, 1]}}} | changes
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}, sort_keys=False))
    return path


def trials(folder: Path, seed: int = 0, **changes):
    return expand(read_sweep(written(folder, **changes)), seed)


def test_a_grid_is_every_combination_in_order(tmp_path: Path) -> None:
    parameters = {
        "grpo.groups.temperature": {"values": [0.7, 1.0]},
        "seed": {"min": 3, "max": 5},
        "rewards": {"value": "{name: weighted, terms: [{reward: eb_f1}]}"},
    }
    found = trials(tmp_path, parameters=parameters)
    expected = itertools.product([0.7, 1.0], [3, 4, 5])
    reward = "rewards={name: weighted, terms: [{reward: eb_f1}]}"
    assert [t.arguments for t in found] == [[f"grpo.groups.temperature={t}", f"seed={s}", reward] for t, s in expected]
    assert len(trials(tmp_path, parameters=parameters, run_cap=4)) == 4


def test_random_draws_stay_in_range_and_come_again_with_the_seed(tmp_path: Path) -> None:
    parameters = {
        "a": {"min": 1e-6, "max": 1e-2, "distribution": "log_uniform_values"},
        "b": {"min": 0.5, "max": 2.0},
        "c": {"min": 2, "max": 4},
        "d": {"values": ["x", "y"]},
    }
    found = trials(tmp_path, method="random", run_cap=200, parameters=parameters)
    assert found == trials(tmp_path, method="random", run_cap=200, parameters=parameters)
    assert found != trials(tmp_path, 1, method="random", run_cap=200, parameters=parameters)
    values = [dict(t.settings) for t in found]
    assert all(1e-6 <= v["a"] <= 1e-2 and 0.5 <= v["b"] <= 2.0 for v in values)
    assert {v["c"] for v in values} == {2, 3, 4} and {v["d"] for v in values} == {"x", "y"}
    below = sum(v["a"] < 1e-4 for v in values) / 200  # the middle of the range in logarithms
    assert math.isclose(below, 0.5, abs_tol=0.12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "bayes"}, "'bayes' needs W&B's own server"),
        ({"method": "random"}, "needs run_cap"),
        ({"metod": "grid"}, r"unknown key 'metod' \(did you mean method"),
        ({"parameters": None}, "missing key 'parameters'"),
        ({"command": ["timepro", "train"]}, "args_no_hyphens"),
        ({"parameters": {"trainer": {"parameters": {"max_steps": {"value": 1}}}}}, "with dots"),
        ({"parameters": {"seed": 3}}, "parameter seed: expected value"),
        ({"parameters": {"seed": {"min": 3, "max": 1}}}, "parameter seed: .* min <= max"),
        ({"parameters": {"seed": {"values": []}}}, "parameter seed: a grid needs"),
        ({"parameters": {"seed": {"min": 0.1, "max": 0.2}}}, "parameter seed: a grid needs"),
        ({"parameters": {"seed": {"distribution": "normal"}}}, "'normal' is not drawn here"),
    ],
)
def test_a_bad_sweep_names_its_key(tmp_path: Path, changes, words) -> None:
    with pytest.raises(ValueError, match=rf"s\.yaml: .*{words}"):
        trials(tmp_path, **changes)


def test_an_unknown_sweep_lists_the_known(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(FileNotFoundError, match="no sweep .*ss.yaml .did you mean s.*sweeps: s"):
        read_sweep(tmp_path / "ss.yaml")


def test_names_are_folders_and_differ_where_trials_do() -> None:
    assert trial_name(["seed=0", "grpo.groups.temperature=0.7"]) == "grpo.groups.temperature=0.7,seed=0"
    assert trial_name([]) == "defaults"
    assert trial_name(["--sweep", "train", "seed=0", "runs=/tmp", "learner.ranks=1"]) == "seed=0"
    long = [trial_name([f"rewards={{name: weighted, terms: [{'x' * 90}{i}]}}"]) for i in range(2)]
    assert long[0] != long[1] and all(len(name) <= 80 and "/" not in name and " " not in name for name in long)
    assert trial_name(["a=b/c"]) != trial_name(["a=b_c"])


def test_the_run_lies_where_the_sweep_looks_for_it(tmp_path: Path) -> None:
    """The names that `timepro train --sweep` gives are those that the sweep expects, extra settings included."""
    sweep = read_sweep(written(tmp_path, parameters={"rewards": {"values": ["eb_f1", "{name: miou}"]}}))
    extra = ["grpo.max_steps=3", "learner.ranks=1"]
    for trial in expand(sweep):
        words = trial_command(sweep, trial, tmp_path, extra)
        arguments = words[words.index("s") + 1 :]
        experiment, overrides = named_run("sed_grpo", arguments, "s")
        config = load_experiment(experiment, overrides, ExperimentConfig, EXPERIMENTS)
        assert Path(config.runs) / config.name == trial_folder(tmp_path, sweep, trial, extra)
        assert (config.wandb.group, config.grpo.max_steps, config.learner.ranks) == ("s", 3, 1)


def test_the_experiment_may_be_a_parameter() -> None:
    experiment, rest = named_run("experiment=ag_grpo", ["seed=1"], None)
    assert (experiment, rest) == ("ag_grpo", ["seed=1"])
    assert named_run("seed=1", ["experiment=ag_grpo"], "s")[0] == "ag_grpo"


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_trial_of_a_shipped_sweep_is_a_configuration(path: Path) -> None:
    sweep = read_sweep(path)
    assert sweep.command[sweep.command.index("--sweep") + 1] == sweep.name == path.stem
    words = list(sweep.command)
    experiment = words[words.index("train") + 1]
    found = expand(sweep)
    names = set()
    for trial in found:
        first = [] if experiment.startswith("-") else [experiment]
        name, overrides = named_run(*_split([*first, *trial.arguments]), sweep.name)
        names.add(load_experiment(name, overrides, ExperimentConfig, EXPERIMENTS).name)
    assert len(names) == len(found)
    assert not any(key.split(".")[0] in PLACES for key in sweep.raw["parameters"])


def _split(words):
    return words[0], words[1:]
