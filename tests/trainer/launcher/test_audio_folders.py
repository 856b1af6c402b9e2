"""Which folders a run lets its workers read, and that `--dry-run` says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from timepro.config import load_experiment
from timepro.data.manifest import Clip, ManifestEvent, write_manifest
from trainer.launcher.checks import audio_folders, check, describe
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


def test_workers_may_read_the_audio_wherever_the_manifests_are(tmp_path: Path) -> None:
    """As `timepro data` makes them: the data set in one folder, linked from another, the manifests in a third."""
    audio, manifests = tmp_path / "nas" / "desed", tmp_path / "data" / "desed"
    audio.mkdir(parents=True)
    manifests.mkdir(parents=True)
    soundfile.write(audio / "a.wav", np.zeros(16000, np.float32), 16000)
    (tmp_path / "linked").symlink_to(audio)
    clips = [Clip("a", tmp_path / "linked" / "a.wav", 1.0, (ManifestEvent(0.1, 0.5, "dog_bark"),))]
    paths = {split: manifests / f"{split}.jsonl" for split in ("sft", "rl", "validation", "test")}
    for path in paths.values():
        write_manifest(path, clips)
    assert audio_folders(paths) == [audio]
    overrides = [f"data.{split}={path}" for split, path in paths.items()]
    config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)
    check(config)
    assert f"workers may read       {audio}" in describe(config)
