from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.data.audio import read_audio


def tone(rate: int, seconds: float = 1.0, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


def test_same_rate_mono_is_read_as_it_is(tmp_path: Path) -> None:
    samples = tone(16000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    found = read_audio(tmp_path / "a.wav")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, samples)


def test_stereo_at_another_rate_is_mixed_and_resampled(tmp_path: Path) -> None:
    left, right = tone(44100), 0.5 * tone(44100)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44100, subtype="FLOAT")
    found = read_audio(tmp_path / "a.wav")
    assert found.shape == (16000,) and found.dtype == np.float32
    np.testing.assert_allclose(found[200:-200], 0.75 * tone(16000)[200:-200], atol=2e-3)


@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_corrupt_flac_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32000), 16000)
    content = path.read_bytes()
    path.write_bytes(b"not audio at all" if damage == "garbage" else content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"bad\.flac"):
        read_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    samples = tone(16000).astype(np.float32)
    samples[77] = value
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav.*NaN or infinite"):
        read_audio(tmp_path / "nan.wav")


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        read_audio(tmp_path / "gone.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(ValueError, match=r"empty\.wav.*no samples"):
        read_audio(tmp_path / "empty.wav")


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_a_long_file_is_resampled_in_pieces_that_fit(tmp_path: Path, monkeypatch, rate: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * rate + 1234).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    whole = read_audio(tmp_path / "a.wav")
    monkeypatch.setattr("timepro.data.audio._LONG", rate // 2)
    monkeypatch.setattr("timepro.data.audio._BLOCK", 1000)
    pieces = read_audio(tmp_path / "a.wav")
    assert pieces.shape == whole.shape
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
