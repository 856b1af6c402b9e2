"""What a run takes over from a kept stage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainer.launcher.stages import take_result


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
