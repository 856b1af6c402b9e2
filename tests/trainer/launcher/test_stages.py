"""What a run takes over from a kept stage, and what its stages take."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from trainer.launcher import stages
from trainer.launcher.stages import StageLog, take_result


@pytest.mark.parametrize("links", [True, False])
def test_a_run_takes_a_kept_checkpoint_without_sharing_what_may_be_written(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: str, target: str) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    kept, run = tmp_path / "kept", tmp_path / "run" / "checkpoint"
    (kept / "adapter").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "adapter/adapter_model.safetensors"):
        (kept / name).write_text(name)
    for _ in range(2):  # again, when an interrupted run goes on
        take_result(kept, run)
        for name in ("config.json", "model.safetensors", "adapter/adapter_model.safetensors"):
            assert (run / name).read_text() == name
            assert (run / name).samefile(kept / name) == (links and name.endswith(".safetensors"))


def test_what_stages_took_adds_up_over_the_starts_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, peaks, record = [100.0], iter([1.5, 4.0, 2.0]), tmp_path / "stages.json"
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def runs(log: StageLog, name: str, seconds: float) -> None:
        with log.stage(name):
            clock[0] += seconds

    first = StageLog(lambda: next(peaks), record=record)
    first.kept("data")
    runs(first, "sft", 30.0)
    with pytest.raises(KeyboardInterrupt), first.stage("grpo"):
        clock[0] += 600.0
        raise KeyboardInterrupt
    second = StageLog(lambda: next(peaks), record=record)
    for name in ("data", "sft"):
        second.kept(name)
    runs(second, "grpo", 25.0)
    assert StageLog(record=record).seconds == second.seconds == {"data": 0.0, "sft": 30.0, "grpo": 625.0}
    assert second.memory_gib == {"sft": 1.5, "grpo": 4.0}


def test_a_full_disk_does_not_hide_why_a_stage_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(stages, "write_json", full)
    with pytest.raises(ValueError, match="the reason"), StageLog(record=tmp_path / "stages.json").stage("sft"):
        raise ValueError("the reason")
