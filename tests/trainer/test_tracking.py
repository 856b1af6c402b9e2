"""What a run records: lines of a metrics file, and W&B offline beside it."""

from __future__ import annotations

import json
import os

import pytest

from trainer.tracking import Tracker, WandbConfig, wandb_mode


def tracker(folder) -> Tracker:
    return Tracker(WandbConfig(mode="disabled"), folder, "run", "grpo", {"seed": 0}, "abcd1234")


def steps(folder) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.grpo.jsonl").read_text().splitlines()]


def test_a_resumed_run_records_every_step_once(tmp_path):
    first = tracker(tmp_path)
    for step in range(1, 8):
        first.log(step, {"reward": step / 10})
    first.finish(1)
    with (tmp_path / "metrics.grpo.jsonl").open("a") as file:
        file.write('{"step": 8, "rew')  # the crash came in the middle of a line

    second = tracker(tmp_path)
    second.resume_from(5, elapsed=100.0)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    second.log(6, {"reward": 0.6})
    second.finish()
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    last = json.loads((tmp_path / "metrics.grpo.jsonl").read_text().splitlines()[-1])
    assert 100.0 <= last["elapsed_s"] < 130.0


def test_a_job_that_never_recorded_can_be_resumed(tmp_path):
    fresh = tracker(tmp_path)
    fresh.resume_from(0, elapsed=0.0)
    fresh.log(1, {"reward": 0.0})
    fresh.finish()
    assert steps(tmp_path) == [1]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="wandb.mode is 'onlin'"):
        wandb_mode(WandbConfig(mode="onlin"))


@pytest.mark.parametrize("job", ["sft", "grpo"])
def test_a_trial_of_a_wandb_agent_is_its_rl_run_mocked(tmp_path, monkeypatch, job):
    given = {}
    monkeypatch.setattr(
        "wandb.init", lambda **arguments: given.update(arguments, sweep=os.environ.get("WANDB_SWEEP_ID"))
    )
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    Tracker(WandbConfig(mode="disabled"), tmp_path, "run", job, {}, "abcd1234")
    expected = {"sft": ("abcd1234", None), "grpo": (None, "s1")}[job]
    assert (given["id"], given["sweep"]) == expected
