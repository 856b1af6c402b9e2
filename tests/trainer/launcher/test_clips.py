"""The clips that a run makes of a sound bank, and what names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from bank_recordings import FREQUENCIES, padded, tone

from timepro.config import load_experiment
from timepro.data.audio import read_audio
from timepro.data.manifest import read_manifest
from timepro.results.keep import manifest_digests
from timepro.run_settings import portable_settings
from trainer.launcher.clips import class_words, write_clips
from trainer.launcher.stage_keys import data_key
from trainer.settings.data import SPLITS
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
DRY = ["data.bank.reverberation_probability=0", "data.soundscape.background_noise=false"]
SINGLE = ["data.soundscape.max_events=1", "data.soundscape.min_events=1", "data.soundscape.equalizer_probability=0"]


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    """Three classes, a source for each part; a recording's pitch tells which it is."""
    for label, frequency in FREQUENCIES.items():
        (tmp_path / "bank" / label).mkdir(parents=True)
        for number in range(3):
            sound = padded(tone(frequency * (1 + 0.1 * number), 0.6), 0.1, 0.1)
            soundfile.write(tmp_path / "bank" / label / f"{number}.wav", sound, 16000)
    return load_experiment(
        "sed_sft", [f"data.soundbank={tmp_path / 'bank'}", *DRY, *SINGLE], ExperimentConfig, EXPERIMENTS
    )


def recordings_heard(manifest: Path) -> set[str]:
    heard = set()
    for clip in read_manifest(manifest):
        (event,), samples = clip.events, read_audio(clip.audio)
        piece = samples[round(event.onset * 16000) : round(event.offset * 16000)]
        pitch = np.argmax(np.abs(np.fft.rfft(piece, 1 << 17))) * 16000 / (1 << 17)
        heard.add(f"{event.label}/{round((pitch / FREQUENCIES[event.label] - 1) / 0.1)}")
    return heard


def test_training_never_hears_what_is_held_out(config: ExperimentConfig, tmp_path: Path) -> None:
    heard = {}
    for split in SPLITS:
        assert write_clips(tmp_path / split, split, 24, config.data, tmp_path / "cache") == {"clips": 24}
        heard[split] = recordings_heard(tmp_path / split / split / f"{split}.jsonl")
    assert heard["sft"] == heard["rl"]
    assert all(len(found) == 3 for found in heard.values())
    assert len(heard["sft"] | heard["validation"] | heard["test"]) == 9
    assert len(list((tmp_path / "cache").glob("soundbank-*.jsonl"))) == 1  # measured once for all splits


def test_a_tiny_models_tokenizer_learns_the_banks_words(config: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "bank/bell/captions.txt").write_text("a bell rings\n")
    labels, texts = class_words(config.data)
    assert labels == sorted(FREQUENCIES) and {"a bell rings", "siren", "the sound of siren"} <= set(texts)


def test_kept_clips_are_found_by_the_banks_content_and_settings(config: ExperimentConfig, tmp_path: Path) -> None:
    def keys() -> list[str]:
        return [data_key(config, "test"), data_key(config, "sft")]

    before = keys()
    assert keys() == before
    config.data.bank.trim_db = 40.0
    trimmed = keys()
    assert not set(trimmed) & set(before)
    soundfile.write(tmp_path / "bank/bell/0.wav", tone(500, 0.3), 16000)
    assert not set(keys()) & {*before, *trimmed}


def test_a_result_knows_its_bank_by_name_and_content(config: ExperimentConfig, tmp_path: Path) -> None:
    from dataclasses import asdict

    settings = asdict(config)
    assert portable_settings(settings)["data"]["soundbank"] == "bank"
    digest = manifest_digests(settings)["soundbank"]
    soundfile.write(tmp_path / "bank/bell/0.wav", tone(500, 0.3), 16000)
    assert manifest_digests(settings)["soundbank"] != digest
