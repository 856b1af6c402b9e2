"""Arms of runs side by side over the clips and seeds that they share; what `timepro runs` and `timepro diff` say."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from timepro.cli import main
from timepro.compare import arms_of_runs, difference, print_comparison, read_arms
from timepro.events import Event
from timepro.metrics.bootstrap import micro_f1, paired_bootstrap
from timepro.run_lock import owner_of, run_lock
from timepro.runs import read_counts
from timepro.sweeps import Trial


def write_evaluation(folder: Path, stage: str, right: list[bool], ids: str = "c") -> None:
    """One event a clip, found or not."""
    path = folder / "eval" / f"{stage}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    event = asdict(Event(1.0, 2.0, "x"))
    lines = [
        {"id": f"{ids}{i}", "task": "sed", "reference": [event], "events": [event] if hit else [], "ok": True}
        for i, hit in enumerate(right)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def arms(tmp_path: Path):
    rng = np.random.default_rng(0)
    trials = [Trial((("rewards", reward), ("seed", seed))) for reward in ("eb_f1", "miou") for seed in (0, 1)]
    folders = [tmp_path / str(i) for i in range(len(trials))]
    for trial, folder in zip(trials, folders, strict=True):
        write_evaluation(folder, "sft", list(rng.random(200) < 0.4))
        write_evaluation(folder, "grpo", list(rng.random(200) < (0.7 if trial.settings[0][1] == "miou" else 0.5)))
    return trials, folders


def test_arms_are_compared_over_the_clips_and_seeds_that_they_share(arms, capsys) -> None:
    first, other = read_arms(*arms)
    assert [(arm.name, list(arm.counts)) for arm in (first, other)] == [
        ("rewards=eb_f1", ["0", "1"]),
        ("rewards=miou", ["0", "1"]),
    ]
    found = difference(first, other, "sed")
    value, (low, high), n_seeds = found.value, found.interval, found.seeds
    counts = [sum(arm.counts[seed]["grpo"]["sed"][1] for seed in ("0", "1")) for arm in (first, other)]
    assert value == pytest.approx(float(micro_f1(counts[1].sum(0)) - micro_f1(counts[0].sum(0))))
    assert 0 < low < value < high and n_seeds == 2
    print_comparison("s", [first, other])
    out = capsys.readouterr().out
    assert "rewards=miou" in out and f"{value:+.3f} [{low:+.3f}, {high:+.3f}], 2 seed(s)" in out


def test_other_test_samples_are_not_compared(arms) -> None:
    trials, folders = arms
    write_evaluation(folders[-1], "grpo", [True] * 200, ids="other")
    first, other = read_arms(trials, folders)
    assert difference(first, other, "sed") == "other test samples"


def test_other_references_under_the_same_ids_are_not_compared(arms) -> None:
    trials, folders = arms
    path = folders[-1] / "eval" / "grpo.jsonl"
    path.write_text(path.read_text().replace('"reference": [{"onset": 1.0', '"reference": [{"onset": 1.5', 2))
    first, other = read_arms(trials, folders)
    assert difference(first, other, "sed") == "other references of c0, c1"


# ---------------------------------------------------------------- timepro runs, timepro diff


def write_run(folder: Path, seed: int, finished: bool = True, **grpo: object) -> Path:
    rng = np.random.default_rng(seed)
    settings = {"name": folder.name, "seed": seed, "runs": str(folder.parent), "grpo": {"max_steps": 9, **grpo}}
    write_evaluation(folder, "sft", list(rng.random(100) < 0.4))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "run.json").write_text(json.dumps({"started": "2026-01-02 03:04:05+0000", "commit": "abc"}))
    (folder / "metrics.grpo.jsonl").write_text('{"step": 3}\n{"step": 4}\n{"step": 5')
    if finished:
        write_evaluation(folder, "grpo", list(rng.random(100) < 0.7))
        (folder / "summary.json").write_text(json.dumps({"stages": {"sft": 60.0, "grpo": 65.0}}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of one arm, one run of another inside a sweep's folder, an unfinished one, and what is no run."""
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"a-seed{seed}", seed)
    write_run(tmp_path / "runs" / "sweep" / "b", 0, minibatches=2)
    write_run(tmp_path / "runs" / "begun", 5, finished=False)
    write_run(tmp_path / "runs" / "cache" / "sft-1", 0)
    write_run(tmp_path / "runs" / "a-seed0" / "control", 0)
    return tmp_path / "runs"


def said_as_json(capsys, *words: str):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_listed_with_state_scores_and_gain(runs: Path, capsys) -> None:
    found = {run["name"]: run for run in said_as_json(capsys, "runs", str(runs))}
    assert list(found) == ["a-seed0", "a-seed1", "begun", "sweep/b"]
    assert [run["state"] for run in found.values()] == ["finished", "finished", "stopped", "finished"]
    assert (found["begun"]["step"], found["begun"]["of"]) == (4, 9)
    counts = {stage: read_counts(runs / "a-seed1" / "eval" / f"{stage}.jsonl")["sed"][1] for stage in ("sft", "grpo")}
    value, interval = paired_bootstrap(counts["sft"], counts["grpo"])
    result = found["a-seed1"]["tasks"]["sed"]
    assert result["gain"] == {"sft": {"value": value, "interval": list(interval), "seeds": 1, "other_machine": False}}
    assert result["stages"] == {stage: float(micro_f1(own.sum(axis=0))) for stage, own in counts.items()}
    assert main(["runs", str(runs)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "a-seed1" in line]
    assert f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]" in row and "2:05" in row


def test_a_run_that_is_going_on_is_said_to_run_and_is_nobody_elses(runs: Path, capsys) -> None:
    with run_lock(runs / "begun"):
        assert main(["runs", str(runs / "begun")]) == 0
        assert "running at step 4 of 9" in capsys.readouterr().out
        assert owner_of(runs / "begun")
        with pytest.raises(ValueError, match="begun is in use by process"), run_lock(runs / "begun"):
            pass
    assert not owner_of(runs / "begun")


def test_seeds_of_the_same_settings_share_a_row(runs: Path, capsys) -> None:
    arms = said_as_json(capsys, "runs", str(runs), "--seeds")["sed"]
    assert [(arm["arm"], arm["seeds"]) for arm in arms] == [("a", ["0", "1"]), ("b", ["0"])]
    assert arms[0]["gain"]["sft"]["seeds"] == 2 and arms[1]["over_first"]["seeds"] == 1
    assert main(["runs", str(runs), "--seeds", "--format", "latex"]) == 0
    out, said = capsys.readouterr()
    assert "left out, since they are not finished: begun" in said
    assert r"\begin{tabular}" in out and f"{min(arms[0]['stages']['sft']):.3f} to" in out


def test_the_same_settings_and_seed_twice_are_refused(runs: Path) -> None:
    again = write_run(runs / "again", 1)
    with pytest.raises(ValueError, match="have the same settings and seed"):
        arms_of_runs([runs / "a-seed1", again])


def test_what_holds_no_run_is_refused(tmp_path: Path, capsys) -> None:
    for folder, message in ((tmp_path, "holds no run"), (tmp_path / "gone", "gone is not a folder")):
        assert main(["runs", str(folder)]) == 2
        assert message in capsys.readouterr().err


def test_settings_that_differ_are_shown_by_dotted_key(runs: Path, capsys) -> None:
    found = said_as_json(capsys, "diff", str(runs / "a-seed1"), str(runs / "sweep" / "b"))
    assert found["settings"] == {"grpo.minibatches": [None, 2], "seed": [1, 0]} and found["commits"] == ["abc", "abc"]
    assert main(["diff", str(runs / "a-seed1"), str(runs / "begun"), "--format", "markdown"]) == 0
    assert "| seed | 1 | 5 |" in capsys.readouterr().out
    assert main(["diff", str(runs / "a-seed1"), str(runs / "a-seed1")]) == 0
    assert "no setting differs; the same code, abc" in capsys.readouterr().out
    assert main(["diff", str(runs / "a-seed1"), str(runs / "a-sed1")]) == 2
    assert "did you mean a-seed1" in capsys.readouterr().err
