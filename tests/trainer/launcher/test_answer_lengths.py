"""A run says before SFT how many right answers would be cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.config import load_experiment
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.manifest import write_manifest
from timepro.features import Processor
from trainer.launcher.answer_lengths import note_answer_lengths
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
WITHOUT_RL = ("grpo.enabled=false", "control.enabled=false")
SPLITS = ("sft", "rl", "validation", "test")


def configured(*words: str) -> ExperimentConfig:
    return load_experiment("sed_grpo", words, ExperimentConfig, [EXPERIMENTS])


def manifests(folder: Path, long: int, count: int = 200) -> dict[str, Path]:
    """Manifests of clips with one event, `long` of them with four."""
    (folder / "a.flac").write_bytes(b"not opened")
    clips = []
    for i in range(count):
        events = tuple(ManifestEvent(float(k), k + 0.5, "siren") for k in range(4 if i < long else 1))
        clips.append(Clip(f"c{i}", folder / "a.flac", 5.0, events))
    write_manifest(folder / "clips.jsonl", clips)
    return dict.fromkeys(SPLITS, folder / "clips.jsonl")


def tokens(checkpoint: Path, events: int) -> int:
    """Of a right answer, counted on its own."""
    text = "".join(f"<{k}.00>siren<{k}.52>" for k in range(events))
    return len(Processor(checkpoint).answer_ids(text))


def test_answers_that_fit_say_nothing(tmp_path: Path, tiny_checkpoint: Path, capsys) -> None:
    most = tokens(tiny_checkpoint, 4)
    config = configured(f"grpo.groups.max_tokens={most}", f"evaluation.max_tokens={most}")
    note_answer_lengths(config, manifests(tmp_path, 100), tiny_checkpoint)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "split", "key"),
    [
        (["grpo.groups.max_tokens={short}"], "rl", "grpo.groups.max_tokens"),
        (["evaluation.max_tokens={short}"], "validation", "evaluation.max_tokens"),
        (["evaluation.max_tokens={short}", "grpo.validate_every=0"], "test", "evaluation.max_tokens"),
        (["evaluation.max_tokens={short}", *WITHOUT_RL], "test", "evaluation.max_tokens"),
    ],
)
def test_answers_that_would_be_cut_off_are_said_with_the_figures(
    tmp_path: Path, tiny_checkpoint: Path, capsys, words: list[str], split: str, key: str
) -> None:
    most, short = tokens(tiny_checkpoint, 4), tokens(tiny_checkpoint, 4) - 1
    enough = [f"grpo.groups.max_tokens={most}", f"evaluation.max_tokens={most}"]
    config = configured(*enough, *(word.format(short=short) for word in words))
    note_answer_lengths(config, manifests(tmp_path, 50), tiny_checkpoint)
    said = " ".join(capsys.readouterr().err.split())
    assert f"50 of 200 right answers in the {split} set have more tokens than {key}={short}" in said
    assert said.endswith(f"the longest has {most}")
