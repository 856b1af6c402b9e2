from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from timepro.data import synth
from timepro.data.audio import read_audio
from timepro.data.manifest import read_manifest
from timepro.data.sounds import SOUNDS
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import augment, soundscape, write_split
from timepro.system import pool as pool_module

CROWDED = SoundscapeConfig(min_events=4, max_events=6, classes=["alarm_beep", "glass_breaking", "speech"])


def on_grid(seconds: float) -> bool:
    return abs(seconds / 0.04 - round(seconds / 0.04)) < 1e-6


def test_same_seed_same_clip_and_another_seed_another() -> None:
    config = SoundscapeConfig()
    first, again, other = soundscape(config, 3), soundscape(config, 3), soundscape(config, 4)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1:] == again[1:]
    assert first[1] != other[1]


@pytest.mark.parametrize("label", list(SOUNDS))
def test_energy_starts_and_ends_at_the_labels(label: str) -> None:
    config = SoundscapeConfig(min_events=1, max_events=1, background_noise=False, classes=[label])
    for seed in range(30):
        waveform, (event,), _ = soundscape(config, seed)
        audible = np.flatnonzero(np.abs(waveform) > 0.05 * np.abs(waveform).max()) / 16000
        assert 0 <= audible[0] - event.onset < 0.010
        assert 0 <= event.offset - audible[-1] < 0.010
        assert np.diff(audible).max() < config.same_class_gap, "a pause that reads as two events"


def test_fades_cover_the_edges_and_move_no_label() -> None:
    single = SoundscapeConfig(min_events=1, max_events=1, background_noise=False, classes=["siren"], max_duration=5)
    window = 640  # 40 ms
    rises = []
    for seed in range(40):
        waveform, (event,), _ = soundscape(replace(single, fade_in_max=1.0, fade_out_max=0.5), seed)
        a, b = round(event.onset * 16000), round(event.offset * 16000)
        assert not waveform[:a].any() and not waveform[b:].any()
        rms = np.sqrt(np.mean(waveform[a : a + (b - a) // window * window].reshape(-1, window) ** 2, axis=1))
        assert rms[len(rms) // 2] > 0.5 * rms.max(), "a fade takes half of the event at most"
        rises.append(rms[0] / rms[len(rms) // 2])
    assert np.median(rises) < 0.1 < max(rises)  # long fades mostly, short ones too


def test_fade_lengths_are_drawn_from_zero_to_the_longest() -> None:
    config = SoundscapeConfig(fade_in_max=0.8, fade_out_max=0.0)
    lengths = []
    for seed in range(200):
        faded = synth._faded(config, np.random.default_rng(seed), np.ones(32000, np.float32))
        assert np.all(np.diff(faded) >= 0) and faded[-1] == 1
        lengths.append(np.count_nonzero(faded < 1) / 16000)
    assert max(lengths) <= 0.8 and min(lengths) < 0.05
    assert abs(np.mean(lengths) - 0.4) < 0.06
    short = synth._faded(replace(config, fade_in_max=60.0), np.random.default_rng(0), np.ones(1000, np.float32))
    assert np.count_nonzero(short < 1) <= 500


@pytest.mark.parametrize("polyphony", [1, 2])
def test_events_respect_polyphony_gap_grid_and_count(polyphony: int) -> None:
    config = replace(CROWDED, max_polyphony=polyphony, min_duration=8.0)
    most = 0
    for seed in range(150):
        waveform, events, _ = soundscape(config, seed)
        assert 4 <= len(events) <= 6
        assert on_grid(len(waveform) / 16000) and 8 <= len(waveform) / 16000 <= 10
        assert np.abs(waveform).max() <= 1
        active = np.zeros(len(waveform) // 640, int)
        for e in events:
            assert on_grid(e.onset) and on_grid(e.offset)
            active[round(e.onset / 0.04) : round(e.offset / 0.04)] += 1
        most = max(most, active.max())
        for label in config.classes:
            mine = [e for e in events if e.label == label]
            assert all(b.onset - a.offset > 0.3 - 1e-6 for a, b in zip(mine, mine[1:], strict=False))
    assert most == polyphony  # reached, never exceeded


def test_annotated_times_lag_and_stay_legal() -> None:
    lags = []
    for seed in range(300):
        waveform, events, _ = soundscape(CROWDED, seed)
        for e in events:
            assert on_grid(e.annotated_onset) and on_grid(e.annotated_offset)
            assert e.annotated_onset >= 0 and e.annotated_offset <= len(waveform) / 16000 + 1e-6
            assert e.annotated_offset - e.annotated_onset > 0.08 - 1e-6
            if e.offset < len(waveform) / 16000 - 1.5:
                lags.append((e.annotated_onset - e.onset, e.annotated_offset - e.offset))
        for label in CROWDED.classes:
            mine = [e for e in events if e.label == label]
            assert all(a.annotated_offset <= b.annotated_onset for a, b in zip(mine, mine[1:], strict=False))
    lags = np.array(lags)
    np.testing.assert_allclose(lags.mean(axis=0), [0.24, 0.24], atol=0.03)
    np.testing.assert_allclose(lags.std(axis=0), [0.06, 0.08], atol=0.015)


def test_queries_hold_all_intervals_and_captions_belong_to_the_class() -> None:
    config = replace(CROWDED, absent_query_probability=1.0, classes=list(SOUNDS))
    for seed in range(50):
        _, events, queries = soundscape(config, seed)
        assert all(e.caption in SOUNDS[e.label].captions for e in events)
        expected = {}
        for e in events:
            expected.setdefault(SOUNDS[e.label].spoken, []).append((e.onset, e.offset))
        absent = queries[-1]
        assert absent.intervals == () and absent.text not in expected
        assert {q.text: list(q.intervals) for q in queries[:-1]} == expected


def test_impossible_layout_and_bad_settings_name_the_key() -> None:
    with pytest.raises(ValueError, match="max_events"):
        soundscape(SoundscapeConfig(min_events=9, max_events=9, classes=["siren"], max_duration=4.0), 0)
    bad = {"classes": ["sirene"], "time_grid": 0.00003, "snr_min_db": 99.0, "equalizer_probability": 2.0}
    bad |= {"fade_in_max": -0.1, "fade_out_max": -1.0}
    for key, value in bad.items():
        with pytest.raises(ValueError, match=key):
            soundscape(replace(SoundscapeConfig(), **{key: value}), 0)


def test_noise_has_the_drawn_snr() -> None:
    config = SoundscapeConfig(
        min_events=1, max_events=1, gain_min_db=0, gain_max_db=0, snr_min_db=6, snr_max_db=6, max_duration=5
    )
    ratios = []
    for seed in range(40):
        waveform, (e,), _ = soundscape(config, seed)
        a, b = round(e.onset * 16000), round(e.offset * 16000)
        noise = np.concatenate([waveform[:a], waveform[b:]])
        ratios.append(10 * np.log10((np.mean(waveform[a:b] ** 2) - np.mean(noise**2)) / np.mean(noise**2)))
    assert abs(np.median(ratios) - 6) < 0.5


def test_augmentation_colours_without_moving_anything() -> None:
    config = SoundscapeConfig(equalizer_probability=1.0)
    click = np.zeros(16000, np.float32)
    click[8000] = 0.2
    gains = []
    for seed in range(20):
        found = augment(click, config, np.random.default_rng(seed))
        assert found.shape == click.shape and found.dtype == np.float32
        assert np.abs(found[:8000]).max() < 1e-6 and np.abs(found).argmax() == 8000
        assert np.abs(found[8064:]).max() < 1e-6
        spectrum = 20 * np.log10(np.abs(np.fft.rfft(found)) / 0.2)
        gains.append(spectrum[np.abs(spectrum).argmax()])
    assert min(gains) < -3 and max(gains) > 3 and np.abs(gains).max() < 9.5
    off = replace(config, equalizer_probability=0.0)
    np.testing.assert_array_equal(augment(click, off, np.random.default_rng(0)), click)


def test_equalizer_matches_scipy() -> None:
    """The short impulse response stands for the whole recursive filter, here run by an independent implementation."""
    from scipy.signal import lfilter

    config = SoundscapeConfig(equalizer_probability=1.0)
    waveform = 0.1 * np.random.default_rng(1).uniform(-1, 1, 16000).astype(np.float32)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rng.random()
        w = 2 * np.pi * np.exp(rng.uniform(np.log(300), np.log(6000))) / 16000
        a, alpha = 10 ** (rng.uniform(-9, 9) / 40), np.sin(w) / 1.4
        expected = lfilter(
            [1 + alpha * a, -2 * np.cos(w), 1 - alpha * a], [1 + alpha / a, -2 * np.cos(w), 1 - alpha / a], waveform
        )
        found = augment(waveform, config, np.random.default_rng(seed))
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_split_is_complete_readable_and_independent_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, seen, processes = SoundscapeConfig(max_duration=5.0), [], []
    one = write_split(tmp_path / "one", "train", 40, 5, config, progress=seen.append)
    pool = pool_module.ProcessPoolExecutor
    monkeypatch.setattr(pool_module, "ProcessPoolExecutor", lambda n, **more: processes.append(n) or pool(n, **more))
    write_split(tmp_path / "few", "train", 40, 5, config, workers=2)
    assert processes == []
    monkeypatch.setattr(synth, "_CHUNK", 8)
    two = write_split(tmp_path / "two", "train", 40, 5, config, workers=2)
    assert processes == [2]
    assert one.read_bytes() == two.read_bytes() and seen[-1] == 40
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["train"]  # no temporary folder is left
    for a, b in zip(read_manifest(one), read_manifest(two), strict=True):
        assert a.audio.read_bytes() == b.audio.read_bytes()
        assert len(read_audio(a.audio)) == round(a.duration * 16000)
    with pytest.raises(FileExistsError, match="train"):
        write_split(tmp_path / "one", "train", 1, 5, config)


def test_splits_share_no_clip(tmp_path: Path) -> None:
    config = SoundscapeConfig(max_duration=4.0)
    audio = [
        clip.audio.read_bytes()
        for name, seed in (("train", 0), ("test", 0), ("train2", 1))
        for clip in read_manifest(write_split(tmp_path, name, 10, seed, config))
    ]
    assert len(set(audio)) == 30


def test_broken_off_split_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_split(tmp_path, "train", 40, 0, SoundscapeConfig(), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(synth.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="22[0-9] MiB are needed.*1 MiB are free"):
        write_split(tmp_path, "train", 1000, 0, SoundscapeConfig())
    assert list(tmp_path.iterdir()) == []
