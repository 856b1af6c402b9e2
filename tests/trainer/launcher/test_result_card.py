"""The card of a run's result: what its folder, its data and its evaluations say."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from timepro.card import read_card
from timepro.config import experiment_folders, load_experiment
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.manifest import write_manifest
from timepro.evaluation import save_scored, score
from timepro.metrics.bootstrap import bootstrap_interval
from timepro.names import CARD, MODEL_CARD
from timepro.runs import record_classes
from timepro.system.files import write_json
from timepro.tasks.samples import evaluation_samples
from trainer.launcher.result_card import write_result_card
from trainer.settings.data import SPLITS
from trainer.settings.experiment import ExperimentConfig

ANSWERS = {
    "sft": ["siren 0.90-1.00", "none", "siren 0.20-0.60"],
    "grpo": ["siren 0.20-0.60", "none", "siren 0.20-0.60"],
}


@pytest.fixture
def run(tiny_checkpoint: Path, tmp_path: Path) -> tuple[ExperimentConfig, Path, dict[str, Path]]:
    """A finished run's folder, as far as a card is made of it."""
    (tmp_path / "audio.wav").write_bytes(b"RIFF")
    event = ManifestEvent(0.2, 0.6, "siren")
    clips = [Clip(f"c{i}", tmp_path / "audio.wav", 1.0, () if i == 1 else (event,)) for i in range(3)]
    manifests = {split: tmp_path / "secret_place" / f"{split}.jsonl" for split in SPLITS}
    for path in manifests.values():
        path.parent.mkdir(exist_ok=True)
        write_manifest(path, clips)
    words = [f"runs={tmp_path}", "name=mine", "seed=5", *(f"data.{split}={path}" for split, path in manifests.items())]
    config = load_experiment("sed_grpo", words, ExperimentConfig, experiment_folders())
    folder = tmp_path / "mine"
    shutil.copytree(tiny_checkpoint, folder / "checkpoint")
    write_json(folder / "run.json", {"started": "today", "commit": "abc123", "home": str(folder)})
    gain = {"eb_f1_micro": {"value": 0.4, "ci95": [0.1, 0.6], "over": "sft"}}
    write_json(folder / "summary.json", {"stages": {"grpo": 7.0}, "gain": gain})
    record_classes(folder, manifests.values(), ["sed"])
    samples = evaluation_samples(manifests["test"], "sed")
    for stage, texts in ANSWERS.items():
        save_scored(score(samples, texts), folder / "eval" / f"{stage}.jsonl")
    return config, folder, manifests


def test_it_says_what_the_runs_files_say(run, tmp_path: Path) -> None:
    config, folder, manifests = run
    write_result_card(config, folder, manifests)
    card = read_card(folder / "checkpoint")
    assert card is not None
    assert (card.name, card.family, card.tasks, card.classes) == ("mine", "qwen2_5_omni", ("sed",), ("siren",))
    assert card.made["seed"] == 5 and card.made["commit"] == "abc123" and card.made["seconds"] == {"grpo": 7.0}
    said = "table, 30 s in steps of 0.04 s, 750 tokens; one after every audio frame; answers in timestamps"
    assert card.timestamps == said
    digest = hashlib.sha256(manifests["test"].read_bytes()).hexdigest()
    assert card.data["test"] == {"name": "test.jsonl", "clips": 3, "sha256": digest, "longest": 1.0, "median": 1.0}
    assert card.usual_clip == 1.0
    assert card.settings["grpo"]["groups"]["group_size"] == config.grpo.groups.group_size
    samples = evaluation_samples(manifests["test"], "sed")
    for stage, texts in ANSWERS.items():
        scored = score(samples, texts)
        metrics = card.metrics[stage]["sed"]
        assert metrics["eb_f1_micro"] == scored.metrics["sed"]["eb_f1_micro"]
        assert tuple(metrics["interval"]) == bootstrap_interval(scored.counts("sed"))[1]
    assert card.gain["eb_f1_micro"]["value"] == 0.4


def test_it_names_no_folder_of_the_machine(run, tmp_path: Path) -> None:
    config, folder, manifests = run
    write_result_card(config, folder, manifests)
    for name in (CARD, MODEL_CARD):
        text = (folder / "checkpoint" / name).read_text()
        assert str(tmp_path) not in text and "secret_place" not in text


def test_what_it_started_from_is_kept(run, tmp_path: Path) -> None:
    """A checkpoint trained before for another task has not forgotten that it saw it."""
    config, folder, manifests = run
    write_result_card(config, folder, manifests)
    start = tmp_path / "start"
    shutil.copytree(folder / "checkpoint", start)
    raw = json.loads((start / CARD).read_text())
    (start / CARD).write_text(json.dumps(raw | {"tasks": ["ag"], "classes": ["dog_bark"]}))
    config.model.path = str(start)
    write_result_card(config, folder, manifests)
    card = read_card(folder / "checkpoint")
    assert card is not None
    assert (card.base, card.task_names, card.classes) == ("start", ["ag", "sed"], ("dog_bark", "siren"))


def test_a_run_without_a_result_of_its_own_gets_none(run) -> None:
    config, folder, manifests = run
    shutil.rmtree(folder / "checkpoint")
    write_result_card(config, folder, manifests)
    assert not (folder / "checkpoint").exists()
