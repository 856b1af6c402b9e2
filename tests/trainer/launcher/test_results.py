"""A sweep and its kept results: what counts as done, and which trial a run is."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from timepro.cli import main
from timepro.config import load_experiment, save_resolved
from timepro.events import Event
from timepro.results.files import read_result, settings_digest
from timepro.results.keep import place_of
from timepro.runs import read_identity
from timepro.sweeps import ARGUMENTS, expand, read_sweep
from trainer.launcher.results import difference_of
from trainer.launcher.runfolder import open_run
from trainer.launcher.trials import distinct, trial_configs, trial_folder
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
COMMAND = ["${env}", "timepro", "train", "sed_grpo", "--sweep", "s", ARGUMENTS]
ARMS = {"rewards": {"values": ["miou", "eb_f1"]}, "seed": {"values": [0, 1]}}


def written(folder: Path, parameters=ARMS, command=COMMAND) -> Path:
    (folder / "sweeps").mkdir(exist_ok=True)
    raw = {"name": "s", "method": "grid", "command": command, "parameters": parameters}
    (folder / "sweeps" / "s.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return folder / "sweeps" / "s.yaml"


def finish(folder: Path, config: ExperimentConfig) -> Path:
    """A finished run with one clip, as if it had been trained."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_resolved(config, folder / "config.yaml")
    event = asdict(Event(1.0, 2.0, "x"))
    for stage in ("sft", "grpo"):
        line = {"id": "c", "task": "sed", "reference": [event], "events": [event], "ok": True}
        (folder / "eval").mkdir(exist_ok=True)
        (folder / "eval" / f"{stage}.jsonl").write_text(json.dumps(line) + "\n")
    summary = {"stages": {"grpo": 3.0}, "eval": {"sft": {"n": 1}, "grpo": {"n": 1}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A sweep with four finished trials, and what would be started."""
    sweep, runs = read_sweep(written(tmp_path), ExperimentConfig), tmp_path / "runs"
    trials = expand(sweep)
    for trial, config in zip(trials, trial_configs(sweep, trials, runs, [], [EXPERIMENTS]), strict=True):
        finish(trial_folder(runs, sweep, trial, []), config)
    started: list[str] = []

    def stand_in(sweep, trials, runs, slots, extra):
        started[:] = [trial_folder(runs, sweep, trial, extra).name for trial in trials]
        started[:] = [name for name in started if not (runs / sweep.name / name / "summary.json").is_file()]
        return {}

    monkeypatch.setattr("trainer.launcher.sweep.run_sweep", stand_in)
    monkeypatch.setattr("trainer.launcher.checks.check", lambda config: None)
    return sweep, runs, started


def run_it(sweep, runs: Path, *words: str) -> int:
    return main(["sweep", str(sweep.path), "--here", "--runs", str(runs), *words])


def test_a_study_goes_on_where_its_files_are(finished, tmp_path: Path, capsys) -> None:
    sweep, runs, started = finished
    assert run_it(sweep, runs) == 0
    kept = sorted((tmp_path / "results" / "s").glob("*.json"))
    assert [path.stem for path in kept] == [f"rewards={r},seed={s}" for r in ("eb_f1", "miou") for s in (0, 1)]
    shutil.rmtree(runs)  # another machine
    kept[3].unlink()
    capsys.readouterr()
    assert run_it(sweep, runs) == 0
    assert started == ["rewards=miou,seed=1"]
    said = capsys.readouterr().out
    assert "3 of 4 trials have a result" in said
    rows = [line.split() for line in said.splitlines() if line.rstrip().endswith(("rewards=miou", "rewards=eb_f1"))]
    # The rows of the main table; tables of where answers err follow.
    assert [(row[0], row[-1]) for row in rows[:2]] == [("1", "rewards=miou"), ("2", "rewards=eb_f1")]
    assert run_it(sweep, runs, "--fresh") == 0 and len(started) == 4
    assert run_it(sweep, runs, "--list", "--json") == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["kept"] for row in listed] == [True, True, False, True]  # in order: all arms of a seed first
    assert {row["code"] for row in listed if row["kept"]} == {"code not recorded"}


def test_a_result_of_other_settings_does_not_count_and_a_newer_setting_does(finished, tmp_path: Path, capsys) -> None:
    sweep, runs, started = finished
    assert run_it(sweep, runs) == 0
    shutil.rmtree(runs)
    paths = sorted((tmp_path / "results" / "s").glob("*.json"))
    for path, change in zip(
        paths,
        (
            lambda s: s["grpo"].update(max_steps=7),  # of another experiment
            lambda s: s["grpo"].pop("minibatches"),  # of before there was such a setting
            lambda s: s["learner"].update(ranks=1),  # made elsewhere
            lambda s: s["grpo"].update(no_longer=1),
        ),
        strict=True,
    ):
        raw = json.loads(path.read_text())
        change(raw["settings"])
        raw["settings_digest"] = settings_digest(raw["settings"])
        path.write_text(json.dumps(raw))
    capsys.readouterr()
    assert run_it(sweep, runs) == 0
    assert sorted(started) == ["rewards=eb_f1,seed=0", "rewards=miou,seed=1"]
    said = " ".join(capsys.readouterr().err.split())
    assert "other settings, grpo.max_steps=7 (now 150)" in said and "another version" in said


def test_other_data_under_the_same_name_is_another_trial(tmp_path: Path) -> None:
    manifests = [f"data.{split}={tmp_path / f'{split}.jsonl'}" for split in ("sft", "rl", "validation", "test")]
    for word in manifests:
        Path(word.partition("=")[2]).write_text("{}\n")
    sweep = read_sweep(written(tmp_path), ExperimentConfig)
    config = load_experiment("sed_grpo", manifests, ExperimentConfig, EXPERIMENTS)
    assert main(["results", "keep", str(finish(tmp_path / "runs" / "a", config)), "--sweep", str(sweep.path)]) == 2
    place = place_of(sweep, ["seed=0"])
    from timepro.results.keep import keep_run

    result = read_result(keep_run(tmp_path / "runs" / "a", place))
    assert set(result.data) == {"sft", "rl", "validation", "test"} and str(tmp_path) not in place.file.read_text()
    assert difference_of(result, config) == ""
    (tmp_path / "rl.jsonl").write_text("{} \n")
    assert difference_of(result, config) == "other data (data.rl)"
    (tmp_path / "rl.jsonl").unlink()
    assert difference_of(result, config) == ""  # what cannot be compared goes by its name


def test_a_run_is_kept_as_the_trial_whose_settings_it_has(tmp_path: Path, capsys) -> None:
    sweep = read_sweep(written(tmp_path), ExperimentConfig)
    config = load_experiment("sed_grpo", ["rewards=miou", "seed=1", "learner.ranks=1"], ExperimentConfig, EXPERIMENTS)
    run = finish(tmp_path / "runs" / "by_hand", config)
    assert main(["results", "keep", str(run), "--sweep", str(sweep.path)]) == 0
    path = tmp_path / "results" / "s" / "rewards=miou,seed=1.json"
    assert str(path) in capsys.readouterr().out
    result = read_result(path)
    assert (result.arm, result.seed, result.position) == ("rewards=miou", "1", 0)
    finish(run, replace(config, seed=5))
    assert main(["results", "keep", str(run), "--sweep", str(sweep.path)]) == 2
    assert "the nearest, rewards=miou,seed=0, differs in seed=5 (now 0)" in capsys.readouterr().err


def test_a_study_by_hand_needs_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        config = load_experiment("sed_grpo", [f"seed={seed}"], ExperimentConfig, EXPERIMENTS)
        finish(tmp_path / "runs" / f"mine-seed{seed}", config)
    assert main(["results", "keep", "runs/mine-seed0", "runs/mine-seed1", "--sweep", "by_hand"]) == 0
    assert main(["report", "--results", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["by_hand"]["tasks"]["sed"]
    assert [(arm["arm"], arm["seeds"]) for arm in found] == [("mine", ["0", "1"])]
    assert main(["results", "write"]) == 2 and "no place for tables" in capsys.readouterr().err


def test_trials_that_come_to_the_same_settings_are_one(tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text("base: sed_grpo\n")
    (tmp_path / "other.yaml").write_text("base: sed_grpo\ngrpo: {max_steps: 3}\n")
    names = ["sed_grpo", str(tmp_path / "again.yaml"), str(tmp_path / "other.yaml")]
    command = [word for word in COMMAND if word != "sed_grpo"]
    sweep = read_sweep(written(tmp_path, {"experiment": {"values": names}}, command), ExperimentConfig)
    trials = expand(sweep)
    configs = trial_configs(sweep, trials, tmp_path, [], [EXPERIMENTS])
    assert distinct(trials, configs) == [0, 2] and distinct(trials, []) == [0, 1, 2]


def test_a_trial_has_its_place_from_its_command_in_any_order(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path), ExperimentConfig)
    for trial in expand(sweep):
        words = ["sed_grpo", "runs=elsewhere", "grpo.max_steps=3", "learner.ranks=1", *reversed(trial.arguments)]
        place, own = place_of(sweep, words), place_of(sweep, [*trial.arguments, "grpo.max_steps=3"])
        assert place == own
        assert place.position == ["miou", "eb_f1"].index(dict(trial.settings)["rewards"])
        assert place.trial == trial_folder(tmp_path, sweep, trial, ["grpo.max_steps=3"]).name
        assert "seed" not in place.arm and place.results == tmp_path / "results"


def test_a_run_records_code_and_machine_and_a_resume_by_other_code(tmp_path: Path, monkeypatch) -> None:
    config = load_experiment("sed_grpo", [f"runs={tmp_path}"], ExperimentConfig, EXPERIMENTS)
    made = read_identity(open_run(config, resume=False))
    assert len(made["code"]) == 12 and made["machine"]["cores"] >= 1 and made["machine"]["memory_gib"] > 0
    assert read_identity(open_run(config, resume=True)) == made
    monkeypatch.setattr("trainer.launcher.runfolder.code_digest", lambda settings: "other")
    assert read_identity(open_run(config, resume=True))["code"] == f"{made['code']}+other"


def test_a_trial_keeps_its_result_as_soon_as_it_is_finished_with_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """So that an interrupted sweep, or an agent of W&B's, leaves what it has finished."""
    import trainer.launcher.pipeline

    path, runs = written(tmp_path), tmp_path / "runs"

    def trained(config: ExperimentConfig, *rest: object) -> Path:
        return finish(Path(config.runs) / config.name, config)

    monkeypatch.setattr(trainer.launcher.pipeline, "run_experiment", trained)
    words = ["train", "sed_grpo", "--sweep", str(path), "seed=1", "rewards=eb_f1", f"runs={runs}", "learner.ranks=1"]
    assert main(words) == 0
    kept = read_result(tmp_path / "results" / "s" / "rewards=eb_f1,seed=1.json")
    assert (kept.arm, kept.seed, kept.position) == ("rewards=eb_f1", "1", 1)
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "results").write_text("in the way")
    shutil.rmtree(runs)
    assert main(words) == 1
    assert "cannot be kept" in capsys.readouterr().err
