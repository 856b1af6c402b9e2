"""A run's folder keeps its audio when it is moved or copied, with its data or alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from timepro.config import save_resolved
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.manifest import write_manifest
from timepro.evaluation import save_scored, score
from timepro.events import Event
from timepro.runs import classes_of, kept_features, near, path_from, path_in, read_evaluation, record_classes, run_title
from timepro.tasks import Sample
from trainer.settings.experiment import ExperimentConfig


def make(root: Path) -> tuple[Path, Path]:
    """A run as a training leaves it, and the audio that its evaluation names."""
    run, audio = root / "runs" / "one", root / "runs" / "cache" / "audio" / "a.flac"
    run.mkdir(parents=True)
    audio.parent.mkdir(parents=True)
    audio.write_bytes(b"sound")
    (run / "run.json").write_text(json.dumps({"wandb_id": "a", "home": os.path.realpath(run)}))
    reference = (Event(0.1, 0.5, "dog"),)
    scored = score([Sample("a", "sed", audio, 1.0, "What?", reference, reference)], ["none"])
    save_scored(scored, run / "eval" / "sft.jsonl")
    return run, audio


def audio_of(run: Path) -> Path:
    (line,) = read_evaluation(run / "eval" / "sft.jsonl")
    return line.audio


def test_paths_are_recorded_relative_to_the_run(tmp_path: Path, monkeypatch) -> None:
    run, audio = make(tmp_path)
    assert json.loads((run / "eval" / "sft.jsonl").read_text())["audio"] == "../cache/audio/a.flac"
    assert audio_of(run) == audio
    monkeypatch.chdir(run.parent)
    assert audio_of(Path("one")).read_bytes() == b"sound"


def test_a_run_moved_with_its_data_finds_it_there(tmp_path: Path) -> None:
    make(tmp_path / "before")
    shutil.move(tmp_path / "before", tmp_path / "after")
    assert audio_of(tmp_path / "after" / "runs" / "one") == tmp_path / "after" / "runs" / "cache" / "audio" / "a.flac"


def test_a_copy_beside_its_own_data_uses_that(tmp_path: Path) -> None:
    make(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "copy")
    (tmp_path / "copy" / "runs" / "cache" / "audio" / "a.flac").write_bytes(b"copied")
    assert audio_of(tmp_path / "copy" / "runs" / "one").read_bytes() == b"copied"


def test_a_run_moved_alone_finds_its_data_where_it_was(tmp_path: Path) -> None:
    run, audio = make(tmp_path / "before")
    (tmp_path / "kept" / "deeply").mkdir(parents=True)
    moved = tmp_path / "kept" / "deeply" / "renamed"
    shutil.move(run, moved)
    assert audio_of(moved) == audio


def test_a_run_behind_a_link_finds_its_data(tmp_path: Path) -> None:
    run, audio = make(tmp_path / "real")
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    link = tmp_path / "elsewhere" / "deep" / "link"
    link.symlink_to(run)
    assert audio_of(link) == audio
    assert path_in(link, audio) == path_in(run, audio)


def test_what_is_gone_is_named_where_it_would_lie(tmp_path: Path) -> None:
    run, audio = make(tmp_path)
    audio.unlink()
    assert audio_of(run) == audio


def test_older_runs_with_absolute_paths_are_read(tmp_path: Path) -> None:
    run, audio = make(tmp_path)
    (run / "run.json").unlink()
    assert path_from(run, str(audio)) == audio


def test_the_classes_are_those_of_all_data_or_else_of_the_test_set(tmp_path: Path) -> None:
    run, audio = make(tmp_path)
    assert classes_of(run) == ["dog"]
    for name, labels in (("train", ["cat", "dog"]), ("test", ["dog", "ant"])):
        clips = [Clip(label, audio, 2.0, (ManifestEvent(0.0, 1.0, label),), ()) for label in labels]
        write_manifest(tmp_path / f"{name}.jsonl", clips)
    record_classes(run, [tmp_path / "train.jsonl", tmp_path / "test.jsonl", tmp_path / "test.jsonl"], ["sed"])
    assert classes_of(run) == ["ant", "cat", "dog"]


def test_captions_of_another_task_are_no_classes(tmp_path: Path) -> None:
    run, audio = make(tmp_path)
    parts = {"dog": ("sed",), "a dog barks, then rain": ("dac",), "cat": None, "rain": ("sed", "ag")}
    clips = [Clip(label, audio, 2.0, (ManifestEvent(0.0, 1.0, label),), (), None, t) for label, t in parts.items()]
    write_manifest(tmp_path / "mixed.jsonl", clips)
    record_classes(run, [tmp_path / "mixed.jsonl"], {"sed": 0.5, "dac": 0.5})
    assert classes_of(run) == ["cat", "dog", "rain"]


@pytest.mark.parametrize(("settings", "title"), [("seed: 3\n", "one, seed 3"), (None, "one")])
def test_a_title_names_run_and_seed(tmp_path: Path, settings, title) -> None:
    run, _ = make(tmp_path)
    if settings:
        (run / "config.yaml").write_text(settings)
    assert run_title(run) == title


def test_near_names() -> None:
    assert near("rewart", ["reward", "kl"]) == " (did you mean reward?)"
    assert near("rewart", ["kl"]) == ""


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_a_runs_checkpoints_find_the_features_that_it_kept(tmp_path: Path, monkeypatch, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    run, _ = make(tmp_path)
    (run / "control" / "checkpoint").mkdir(parents=True)
    config = ExperimentConfig(name="one", runs=str(run.parent))
    config.data.feature_cache.folder = folder and str(tmp_path / folder)
    config.data.feature_cache.gigabytes = 7.0
    assert kept_features(run / "checkpoint") is None  # of a run of an older version
    save_resolved(config, run / "config.yaml")
    for checkpoint in (run / "checkpoint", run / "control" / "checkpoint"):
        assert kept_features(checkpoint) == config.data.feature_cache.place(config.runs)
    assert kept_features(tmp_path / "published") is None
