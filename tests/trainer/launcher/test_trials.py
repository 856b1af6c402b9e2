"""A sweep's trials as runs of `timepro train`: each has a folder of its own, and is known to work before any starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from timepro.cli import main
from timepro.config import load_experiment, save_resolved
from timepro.sweeps import ARGUMENTS, expand, read_sweep
from trainer.launcher.runfolder import is_finished_with
from trainer.launcher.trials import check_trials, named_run, trial_command, trial_configs, trial_folder
from trainer.settings.experiment import ExperimentConfig

ROOT = Path(__file__).resolve().parents[3]
EXPERIMENTS = ROOT / "experiments"
CASES = ROOT.parent / "shared" / "cases"
FOLDERS = [EXPERIMENTS]
COMMAND = ["${env}", "timepro", "train", "sed_grpo", "--sweep", "s", ARGUMENTS]


def written(folder: Path, **changes) -> Path:
    raw = {"name": "s", "method": "grid", "command": COMMAND, "parameters": {"seed": {"values": [0, 1]}}} | changes
    (folder / "s.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return folder / "s.yaml"


def read(folder: Path, **changes):
    return read_sweep(written(folder, **changes), ExperimentConfig)


@pytest.mark.parametrize(
    "parameters",
    [
        {"rollout.dtype": {"values": ["float32", "bfloat16"]}},
        {"learner.ranks": {"values": [1, 2]}},
        {"sync.bucket_mib": {"values": [1.0, 2.0]}, "nodes.silence_timeout_s": {"values": [5.0, 6.0]}},
        {"rewards": {"values": ["eb_f1", "{name: miou}", "{name: adaptive, main: eb_f1, aux: miou}"]}},
        {"experiment": {"values": ["ag_grpo", "ablation/sft"]}, "seed": {"values": [0, 1]}},
    ],
)
@pytest.mark.parametrize("extra", [[], ["grpo.max_steps=3", "learner.threads=1"]])
def test_every_trial_has_a_folder_of_its_own_where_its_run_lies(tmp_path: Path, parameters, extra) -> None:
    command = [word for word in COMMAND if word != "sed_grpo" or "experiment" not in parameters]
    sweep = read(tmp_path, parameters=parameters, command=command)
    trials = expand(sweep)
    configs = trial_configs(sweep, trials, tmp_path, extra, FOLDERS)
    folders = [trial_folder(tmp_path, sweep, trial, extra) for trial in trials]
    assert len(set(folders)) == len(trials) > 1
    assert [Path(config.runs) / config.name for config in configs] == folders
    assert {config.wandb.group for config in configs} == {"s"}
    for trial, folder in zip(trials, folders, strict=True):
        assert f"name=s/{folder.name}" in trial_command(sweep, trial, tmp_path, extra)


def test_an_agent_of_wandb_finds_the_same_name_from_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    parameters = {"rollout.dtype": {"values": ["float32", "bfloat16"]}, "seed": {"value": 0}}
    sweep = read(tmp_path / "sweeps", parameters=parameters)
    for trial in expand(sweep):
        _, overrides = named_run("sed_grpo", list(reversed(trial.arguments)), "s", [tmp_path, EXPERIMENTS])
        name = trial_folder(tmp_path, sweep, trial, []).name
        assert f"name=s/{name}" in overrides and f"rollout.dtype={dict(trial.settings)['rollout.dtype']}" == name
    # Of a sweep whose file is not here every setting counts.
    _, overrides = named_run("sed_grpo", ["seed=0", "rollout.dtype=float32"], "elsewhere", FOLDERS)
    assert "name=elsewhere/rollout.dtype=float32,seed=0" in overrides


def test_the_experiment_may_be_a_parameter() -> None:
    assert named_run("experiment=ag_grpo", ["seed=1"], None, FOLDERS) == ("ag_grpo", ["seed=1"])
    assert named_run("seed=1", ["experiment=ag_grpo"], "x", FOLDERS)[0] == "ag_grpo"
    with pytest.raises(ValueError, match="'seed=1' is a setting; name the experiment"):
        named_run("seed=1", [], None, FOLDERS)


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_trial_of_a_shipped_sweep_is_a_configuration(path: Path, tmp_path: Path) -> None:
    sweep = read_sweep(path, ExperimentConfig)
    assert sweep.command[sweep.command.index("--sweep") + 1] == sweep.name == path.stem
    trials = expand(sweep)
    names = {config.name for config in trial_configs(sweep, trials, tmp_path, [], FOLDERS)}
    assert len(names) == len(trials)


def test_a_trial_that_could_not_run_is_named_before_any_starts(tmp_path: Path) -> None:
    sweep = read(tmp_path, parameters={"rewards": {"values": ["eb_f1", "nothing"]}})
    trials = expand(sweep)
    folders = [trial_folder(tmp_path, sweep, trial, []) for trial in trials]
    with pytest.raises(ValueError, match=r"s\.yaml: trial rewards=nothing: .*unknown reward 'nothing'"):
        check_trials(sweep, folders, trial_configs(sweep, trials, tmp_path, [], FOLDERS))
    command = [word for word in COMMAND if word != "sed_grpo"]
    sweep = read(tmp_path, parameters={"experiment": {"values": ["ag_grpo", "ag_gpro"]}}, command=command)
    with pytest.raises(ValueError, match=r"experiment=ag_gpro: there is no experiment 'ag_gpro' .did you mean ag_grpo"):
        trial_configs(sweep, expand(sweep), tmp_path, [], FOLDERS)


def test_a_result_of_other_settings_does_not_stand_for_a_trial(tmp_path: Path) -> None:
    config = load_experiment("sed_grpo", [], ExperimentConfig, EXPERIMENTS)
    assert not is_finished_with(tmp_path, config)
    save_resolved(config, tmp_path / "config.yaml")
    (tmp_path / "summary.json").write_text("{}")
    assert is_finished_with(tmp_path, config)
    assert is_finished_with(tmp_path, replace(config, name="other", learner=replace(config.learner, ranks=1)))
    with pytest.raises(ValueError, match=r"is finished with other settings, seed=0 \(now 1\): move it away"):
        is_finished_with(tmp_path, replace(config, seed=1))
    (tmp_path / "config.yaml").write_text("trainer: {max_steps: 3}\n")
    with pytest.raises(
        ValueError, match=r"config\.yaml:1: unknown key trainer.*was finished by another version: move it"
    ):
        is_finished_with(tmp_path, config)


def test_a_finished_trial_needs_no_data_to_be_found_finished(tmp_path: Path, capsys) -> None:
    words = [f"runs={tmp_path}", f"data.test={tmp_path / 'gone.jsonl'}"]
    named, overrides = named_run("sed_grpo", words, "s", FOLDERS)
    config = load_experiment(named, overrides, ExperimentConfig, FOLDERS)
    folder = Path(config.runs) / config.name
    folder.mkdir(parents=True)
    save_resolved(config, folder / "config.yaml")
    (folder / "summary.json").write_text("{}")
    assert main(["train", "sed_grpo", *words, "--sweep", "s"]) == 0
    assert "is finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=3"], "seed=3: seed is a parameter of"),
        (["name=x"], "name=x: a sweep names its trials itself"),
        (["runs=x"], "given as --runs x"),
        (["grpo.max_step=3"], "unknown key grpo.max_step (did you mean grpo.max_steps?)"),
        (["--slots", "0"], "--slots is 0"),
    ],
)
def test_a_setting_for_all_trials_that_cannot_be_one_is_refused(tmp_path: Path, capsys, words, message) -> None:
    path = written(tmp_path)
    assert main(["sweep", str(path), "--here", "--list", "--runs", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> dict:
    """A stand-in for W&B's server, and what it was given; its agents end with `code`."""
    given: dict = {"code": 0}

    def made(raw, project):
        given["project"] = project
        return "abc"

    monkeypatch.setattr("trainer.launcher.commands.sweep.wandb_mode", lambda config: "online")
    monkeypatch.setattr("wandb.sweep", made)
    monkeypatch.setattr("wandb.Api", lambda: SimpleNamespace(default_entity="me"))
    stand_in = SimpleNamespace(wait=lambda: given["code"])
    monkeypatch.setattr("trainer.launcher.commands.sweep.subprocess", SimpleNamespace(Popen=lambda words: stand_in))
    return given


def test_a_sweep_of_wandb_takes_its_project_from_the_settings_and_fails_with_its_agents_mocked(
    tmp_path: Path, online: dict, capsys
) -> None:
    words = ["sweep", str(written(tmp_path)), "--runs", str(tmp_path), "wandb.project=mine"]
    assert main(words) == 0 and online["project"] == "mine"
    online["code"] = 1
    assert main(words) == 1
    assert "a W&B agent ended with an error" in capsys.readouterr().err


def test_a_grid_is_checked_before_it_is_a_sweep_of_wandb_mocked(tmp_path: Path, online: dict, capsys) -> None:
    path = written(tmp_path, parameters={"rewards": {"values": ["eb_f1", "nothing"]}})
    assert main(["sweep", str(path), "--runs", str(tmp_path)]) == 2
    assert "trial rewards=nothing" in capsys.readouterr().err and "project" not in online


# ---------------------------------------------------------------- from public reports


@pytest.fixture
def case() -> Path:
    if not CASES.is_dir():
        pytest.skip(f"the cases from public reports are not at {CASES}")
    return CASES / "sweep_same_folder"


@pytest.mark.parametrize(("name", "count"), [("dtype", 2), ("random", 2)])
def test_reported_sweeps_have_a_folder_a_trial(case: Path, tmp_path: Path, name: str, count: int) -> None:
    text = re.sub(r"trainer\.group_size", "grpo.groups.group_size", (case / f"{name}.yaml").read_text())
    (tmp_path / f"{name}.yaml").write_text(text)
    sweep = read_sweep(tmp_path / f"{name}.yaml", ExperimentConfig)
    folders = {trial_folder(tmp_path, sweep, trial, []) for trial in expand(sweep)}
    assert len(folders) == len(expand(sweep)) == count


def test_the_reported_program_keeps_both_results(case: Path, tmp_path: Path) -> None:
    command = ["${interpreter}", str(case / "stub.py"), ARGUMENTS]
    raw = {"name": "stub", "method": "grid", "command": command}
    raw["parameters"] = {"rollout.dtype": {"values": ["float32", "bfloat16"]}}
    (tmp_path / "stub.yaml").write_text(yaml.safe_dump(raw))
    runs = tmp_path / "runs"
    words = ["sweep", str(tmp_path / "stub.yaml"), "--here", "--runs", str(runs), "--slots", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "timepro.cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=os.environ | {"WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found = {path.parent.name: json.loads(path.read_text()) for path in runs.glob("stub/*/summary.json")}
    assert set(found) == {"rollout.dtype=float32", "rollout.dtype=bfloat16"}, done.stderr
    assert not any(summary["resume"] for summary in found.values())
