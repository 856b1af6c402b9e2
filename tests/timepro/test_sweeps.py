"""Sweeps in W&B's format: what a file stands for, and which files are refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import yaml

from timepro.config import load_experiment
from timepro.names import check_run_name, folder_name
from timepro.sweeps import ARGUMENTS, expand, find_sweep, naming_words, read_sweep, trial_name
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
    expected = itertools.product([3, 4, 5], [0.7, 1.0])  # all arms of a seed before the next seed
    reward = "rewards={name: weighted, terms: [{reward: eb_f1}]}"
    assert [t.arguments for t in found] == [[f"grpo.groups.temperature={t}", f"seed={s}", reward] for s, t in expected]
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
        ({"parameters": {"seed": 3}}, "key parameters.seed: expected {value"),
        ({"parameters": {"seed": {"min": 3, "max": 1}}}, "parameter seed: .* min <= max"),
        ({"parameters": {"seed": {"values": []}}}, "parameter seed: a grid needs"),
        ({"parameters": {"seed": {"values": 3}}}, "key parameters.seed.values: '3' is not a list"),
        ({"parameters": [1]}, "key parameters: expected a mapping"),
        ({"name": "../up"}, "cannot name a run's folder: it leads out"),
        ({"method": "random", "run_cap": 0}, "run_cap is 0"),
        ({"parameters": {"seed": {"min": 0.1, "max": 0.2}}}, "parameter seed: a grid needs"),
        ({"parameters": {"seed": {"distribution": "normal"}}}, "'normal' is not drawn here"),
    ],
)
def test_a_bad_sweep_names_its_key(tmp_path: Path, changes, words) -> None:
    with pytest.raises(ValueError, match=rf"s\.yaml(:\d+)?: .*{words}|{words}"):
        trials(tmp_path, **changes)


def test_an_unknown_sweep_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    path = written(tmp_path / "sweeps")
    assert find_sweep("s", [tmp_path]) == path and find_sweep(str(path), []) == path
    for name in ("ss", str(tmp_path / "ss.yaml")):
        with pytest.raises(ValueError, match=r"no sweep .*ss.* .did you mean s.*sweeps: s"):
            find_sweep(name, [tmp_path])


# ---------------------------------------------------------------- against the schema


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"grpo.group_size": {"values": [4]}}, r"s.yaml:\d+: unknown key grpo.group_size .did you mean grpo.groups.gr"),
        ({"trainer.max_steps": {"value": 4}}, r"unknown key trainer.max_steps: it is called grpo.max_steps now"),
        ({"grpo.max_steps": {"values": [4, "many"]}}, r"key parameters.grpo.max_steps.values.1: 'many' is not a whole"),
        ({"grpo.max_steps": {"values": [4, 1.5]}}, r"'1.5' is not a whole number"),
        ({"grpo.kl.coefficient": {"value": "off"}}, r"'off' is not a number"),
        ({"grpo.max_steps": {"min": 1, "max": 9, "distribution": "uniform"}}, r"draws fractions"),
        ({"name": {"values": ["a", "b"]}}, r"key parameters.name: cannot tell trials apart"),
        ({"wandb.group": {"values": ["a", "b"]}}, r"key parameters.wandb.group: cannot tell trials apart"),
    ],
)
def test_a_mistake_in_a_parameter_is_found_by_line_and_key(tmp_path: Path, parameters, words) -> None:
    with pytest.raises(ValueError, match=words):
        read_sweep(written(tmp_path, parameters=parameters), ExperimentConfig)


def test_values_are_read_as_their_settings_are(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(
        "name: s\nmethod: grid\ncommand: [timepro, train, sed_grpo, '${args_no_hyphens}']\nparameters:\n"
        "  grpo.objective.mismatch.mode: {values: [off, truncate]}\n  grpo.optimiser.learning_rate: {value: 1e-5}\n"
        "  model.path: {value: 007}\n  seed: {value: 010}\n"
    )
    first, second = expand(read_sweep(path, ExperimentConfig))
    assert first.arguments == [
        "grpo.objective.mismatch.mode=off", "grpo.optimiser.learning_rate=1e-05", "model.path=007", "seed=10",
    ]  # fmt: skip
    assert second.arguments[0] == "grpo.objective.mismatch.mode=truncate"
    config = load_experiment("sed_grpo", first.arguments, ExperimentConfig, EXPERIMENTS)
    assert (config.grpo.objective.mismatch.mode, config.model.path, config.seed) == ("off", "007", 10)


def test_another_program_has_settings_of_its_own(tmp_path: Path) -> None:
    command = ["${interpreter}", "other.py", ARGUMENTS]
    sweep = read_sweep(written(tmp_path, command=command, parameters={"x.y": {"values": [1, 2]}}), ExperimentConfig)
    assert [trial.arguments for trial in expand(sweep)] == [["x.y=1"], ["x.y=2"]]


# ---------------------------------------------------------------- equal draws, and names


def test_equal_draws_are_one_trial(tmp_path: Path) -> None:
    parameters = {"grpo.groups.group_size": {"values": [4, 8]}}
    drawn = trials(tmp_path, method="random", run_cap=40, parameters=parameters)
    assert sorted(trial.arguments for trial in drawn) == [["grpo.groups.group_size=4"], ["grpo.groups.group_size=8"]]
    assert len(trials(tmp_path, parameters={"seed": {"values": [1, 1, 2]}})) == 2


WORDS = [
    "seed=0", "seed=1", "data.seed=0", "a=b/c", "a=b_c", "a=b--c", "a=b-/c", "a=b/-c", "a=b c", "a=b  c", "a=", "a=.",
    "a=..", "rewards={name: adaptive, main: eb_f1}", "rewards={name: adaptive,main: eb_f1}", "x=é", "x=e",
    "rollout.dtype=float32", f"long={'x' * 300}1", f"long={'x' * 300}2", "grpo.optimiser.learning_rate=1e-05",
    "sft.optimiser.learning_rate=1e-05",
]  # fmt: skip


def test_names_are_folders_and_differ_where_trials_do() -> None:
    names = {}
    for n in (1, 2, 3):
        for words in itertools.combinations(WORDS, n):
            name = folder_name(words)
            assert names.setdefault(name, set(words)) == set(words)
            assert name == folder_name(tuple(reversed(words)))
            assert len(name) <= 100 and "/" not in name and " " not in name and name[0] not in ".-" and name.isascii()
            check_run_name(f"sweep/{name}")


def test_names_can_be_read() -> None:
    assert trial_name(["seed=0", "grpo.groups.temperature=0.7"]) == "grpo.groups.temperature=0.7,seed=0"
    assert trial_name(["experiment=ablation/sft", "seed=0"]) == "experiment=ablation--sft,seed=0"
    assert trial_name(["model.path=checkpoints/omni_7b"]) == "model.path=checkpoints--omni_7b"
    assert trial_name(["rollout.dtype=float32", "runs=/tmp", "name=s/x", "wandb.group=s"]) == "rollout.dtype=float32"
    assert trial_name([]) == "defaults"
    long = trial_name([f"grpo.some.where.setting_{i}={i}" for i in range(5)])
    assert long.startswith("setting_0=0,setting_1=1,setting_2=2,") and len(long) <= 100


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../b", "/a", "a/", "a//b", "a/./b", "cache", "cache/x",
     "a\nb", "a\0", "-a", " a", "x" * 300],
)  # fmt: skip
def test_a_name_that_is_not_a_folder_below_the_runs_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a run's folder"):
        check_run_name(name)


def test_what_varies_names_a_trial_and_what_all_trials_are_given_where_it_says_what_they_are(tmp_path: Path) -> None:
    parameters = {"rollout.dtype": {"values": ["a", "b"]}, "seed": {"value": 0}, "sft.max_steps": {"values": [5]}}
    sweep = read_sweep(written(tmp_path, parameters=parameters))
    words = ["rollout.dtype=a", "seed=0", "sft.max_steps=5", "grpo.max_steps=3", "learner.ranks=1", "rollout.threads=1"]
    assert naming_words(["train", *words, "--sweep", "s"], sweep) == ["rollout.dtype=a", "grpo.max_steps=3"]
    assert naming_words(words, None) == words
