"""A task of a user's own, from a folder outside the repository, trained beside a shipped one: SFT, GRPO, evaluation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import toy_task

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SPEC = "users_task:FirstSound"
OVERRIDES = [
    "name=outside",
    f"task={{sed: 1, {SPEC}: 1}}",
    "data.sft_clips=16",
    "data.rl_clips=8",
    "data.validation_clips=4",
    "data.test_clips=8",
    "learner.ranks=1",
    "sft.max_steps=6",
    "sft.batch_size=8",
    "sft.encoder_warmup.steps=2",
    "grpo.max_steps=2",
    "grpo.groups.prompts_per_step=4",
    "grpo.groups.group_size=4",
    "grpo.optimiser.warmup_steps=0",
    # The short name, which is known once the experiment has found the task by its import path.
    "rewards={name: by_task, sed: easy_rewards:share_of_times, "
    "first: {name: weighted, terms: [{reward: easy_rewards:share_of_times}, {reward: miou}]}}",
    "wandb.mode=disabled",
    "control.enabled=false",
]


def timepro(folder: Path, *arguments: str) -> str:
    """What a command prints; the task's folder is on PYTHONPATH, as a user's would be."""
    path = os.pathsep.join([str(ROOT / "tests"), str(folder / "users_folder")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "timepro.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's and the task's folder; what the training printed is in `printed.txt`."""
    folder = tmp_path_factory.mktemp("runs")
    assert toy_task.write(folder / "users_folder", "users_task") == SPEC
    (folder / "printed.txt").write_text(timepro(folder, "train", "sed_grpo", *OVERRIDES, f"runs={folder}"))
    return folder


def test_the_task_is_evaluated_before_and_after_grpo_by_its_own_metrics(folder: Path) -> None:
    summary = json.loads((folder / "outside" / "summary.json").read_text())
    for stage in ("sft", "grpo"):
        assert set(summary["eval"][stage]) == {"sed", "first"}
        assert summary["eval"][stage]["first"]["n"] == 8
        assert 0 <= summary["eval"][stage]["first"]["hit"] <= 1
    assert set(summary["gain"]) == {"sed/eb_f1_micro", "first/hit"}
    printed = " ".join((folder / "printed.txt").read_text().split())  # the title may be wrapped
    assert "task first: 8 test samples" in printed
    assert "hits" in printed


def test_its_groups_are_sampled_scored_and_kept(folder: Path) -> None:
    parts = {"sed": {"by_task", "share_of_times"}, "first": {"by_task", "weighted", "share_of_times", "miou"}}
    files = (folder / "outside" / "rollouts").glob("*.jsonl")
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert {line["task"] for line in lines} == set(parts)
    for line in lines:
        assert line["id"].endswith(f"@{line['task']}")
        assert line.get("task_spec") == (SPEC if line["task"] == "first" else None)
        assert set(line["answers"][0]["parts"]) == parts[line["task"]]
        if line["task"] == "first":
            assert line["question"] == "When does the first sound occur?"
            assert [event["label"] for event in line["reference"]] == [""]


def test_other_commands_read_the_run(folder: Path) -> None:
    run = folder / "outside"
    timepro(folder, "report", str(run), "--out", str(folder / "report.html"))
    assert re.search(r'"first": ?"hit"', (folder / "report.html").read_text())
    (line,) = [json.loads(text) for text in (run / "eval" / "grpo.jsonl").read_text().splitlines()][-1:]
    timepro(folder, "plot", "clip", str(run), line["id"], "--out", str(folder / "clip.png"))
    assert (folder / "clip.png").stat().st_size > 5_000
