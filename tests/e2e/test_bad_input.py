"""Wrong use and broken data: a clear message, a non-zero exit, and nothing half-written taken as done."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "timepro.cli", "train", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


def dataset(folder: Path, events: list[dict[str, object]], audio: bool = True) -> Path:
    """A manifest of one clip of two seconds."""
    if audio:
        noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
        soundfile.write(folder / "a.flac", noise, 16000)
    path = folder / "clips.jsonl"
    path.write_text(json.dumps({"id": "a", "audio": "a.flac", "duration": 2.0, "events": events}) + "\n")
    return path


def own_data(manifest: Path, runs: Path) -> list[str]:
    splits = [f"data.{name}={manifest}" for name in ("sft", "rl", "validation", "test")]
    return ["sed_grpo", f"runs={runs}", *splits, "sft.batch_size=2", "grpo.groups.prompts_per_step=2"]


GOOD = {"onset": 0.4, "offset": 1.2, "label": "siren", "annotated_onset": 0.6, "annotated_offset": 1.4}


def test_unknown_experiment_lists_the_known_ones() -> None:
    result = train("sed_grop")
    assert result.returncode == 2
    assert "sed_grop" in result.stderr and "did you mean sed_grpo" in result.stderr


def test_unknown_key_names_near_ones() -> None:
    result = train("sed_grpo", "grpo.max_step=5")
    assert result.returncode == 2
    assert "grpo.max_step" in result.stderr and "grpo.max_steps" in result.stderr


def test_bad_value_names_its_key() -> None:
    result = train("sed_grpo", "grpo.max_steps=many")
    assert result.returncode == 2
    assert "grpo.max_steps" in result.stderr and "many" in result.stderr


def test_unknown_reward_names_near_ones() -> None:
    result = train("sed_grpo", "rewards=adaptve", "--dry-run")
    assert result.returncode == 2
    assert "adaptve" in result.stderr and "adaptive" in result.stderr


def test_dry_run_prints_configuration_and_plan(tmp_path: Path) -> None:
    result = train("sed_grpo", f"runs={tmp_path}", "--dry-run", "grpo.groups.group_size=4")
    assert result.returncode == 0
    assert "group_size: 4" in result.stdout and "largest micro-batch" in result.stdout
    assert not list(tmp_path.iterdir())


def test_resume_without_a_run(tmp_path: Path) -> None:
    result = train("sed_grpo", f"runs={tmp_path}", "--resume")
    assert result.returncode == 2
    assert "nothing to resume" in result.stderr


def test_checkpoint_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    result = train("sed_grpo", f"runs={tmp_path / 'runs'}", f"model.path={tmp_path / 'model'}")
    assert result.returncode == 2
    assert "not a checkpoint folder" in result.stderr and str(tmp_path / "model") in result.stderr


def test_event_beyond_its_clip_names_file_and_line(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [{**GOOD, "offset": 3.0}])
    result = train(*own_data(manifest, tmp_path / "runs"))
    assert result.returncode == 2
    assert f"{manifest}:1" in result.stderr and "offset" in result.stderr


def test_onset_behind_offset_names_file_and_line(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [{**GOOD, "onset": 1.3}])
    result = train(*own_data(manifest, tmp_path / "runs"))
    assert result.returncode == 2
    assert f"{manifest}:1" in result.stderr


def test_missing_audio_names_the_file(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [GOOD], audio=False)
    result = train(*own_data(manifest, tmp_path / "runs"))
    assert result.returncode == 2
    assert str(tmp_path / "a.flac") in result.stderr


@pytest.mark.slow
def test_corrupt_audio_names_the_file_and_leaves_no_result(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [GOOD])
    (tmp_path / "a.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:500])
    runs = tmp_path / "runs"
    result = train(*own_data(manifest, runs))
    assert result.returncode != 0
    assert str(tmp_path / "a.flac") in result.stderr
    assert not list((runs / "cache").glob("sft-*/stage.json"))


def test_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = train("sed_grpo", f"runs={tmp_path}", f"rollout.base_port={port}")
    assert result.returncode == 2
    assert str(port) in result.stderr and "rollout.base_port" in result.stderr
    assert not (tmp_path / "cache").exists()


def test_full_disk_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from trainer.launcher import stages

    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"0.0 GiB free.*needs about 5"):
        stages.require_disk(tmp_path, 5.0)
