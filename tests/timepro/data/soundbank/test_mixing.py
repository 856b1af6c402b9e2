"""Soundscapes of recordings: exact times, held-out sources, levels, rooms."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bank_recordings import FREQUENCIES, padded, tone

from timepro.data.audio import read_audio
from timepro.data.manifest import read_manifest
from timepro.data.soundbank.bank import open_bank
from timepro.data.soundbank.mixing import BankSounds
from timepro.data.soundbank.settings import PARTS, BankConfig
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import soundscape, write_split

DRY = BankConfig(reverberation_probability=0.0)
ALONE = SoundscapeConfig(min_events=1, max_events=1, background_noise=False, equalizer_probability=0.0)


def sounds_of(folder: Path, config: BankConfig = DRY, part: str = "training") -> BankSounds:
    return BankSounds(open_bank(folder, config), part)


def test_an_event_is_heard_from_its_onset_to_its_offset(bank: Path) -> None:
    sounds = sounds_of(bank)
    for seed in range(40):
        waveform, (event,), _ = soundscape(ALONE, seed, sounds)
        audible = np.flatnonzero(np.abs(waveform) > 0.05 * np.abs(waveform).max()) / 16000
        assert 0 <= audible[0] - event.onset < 0.010
        assert 0 <= event.offset - audible[-1] < 0.010
        assert abs(event.offset / 0.04 - round(event.offset / 0.04)) < 1e-6


def test_a_long_recording_gives_pieces_that_are_heard_at_both_ends(bank: Path, write) -> None:
    """Ten seconds of half-second tones between pauses: a piece must not begin or end in a pause."""
    pattern = np.concatenate([tone(700, 0.5), np.zeros(4000, np.float32)])
    for number in range(5):
        write(f"bell/{number}.wav", padded(np.tile(pattern, 13), 0.3, 0.3) + np.float32(number * 1e-6))
    sounds = sounds_of(bank, replace(DRY, classes=["bell"], max_seconds=1.3))
    starts = set()
    for seed in range(40):
        waveform, (event,), _ = soundscape(ALONE, seed, sounds)
        assert event.offset - event.onset <= 1.3
        audible = np.flatnonzero(np.abs(waveform) > 0.05 * np.abs(waveform).max()) / 16000
        assert 0 <= audible[0] - event.onset < 0.010
        assert 0 <= event.offset - audible[-1] < 0.051  # the pause may begin within the last step of the grid
        starts.add(round(event.offset - event.onset, 2))
    assert len(starts) > 3


def test_each_part_is_mixed_from_its_own_recordings_alone(bank: Path, tmp_path: Path) -> None:
    """By the pitch: each recording of a class has one of its own."""
    opened = open_bank(bank, DRY)
    for part in PARTS:
        own = {r.path for sources in opened.parts[part].values() for source in sources for r in source}
        heard = set()
        for seed in range(60):
            waveform, (event,), _ = soundscape(ALONE, seed, BankSounds(opened, part))
            piece = waveform[round(event.onset * 16000) : round(event.offset * 16000)]
            pitch = np.argmax(np.abs(np.fft.rfft(piece, 1 << 17))) * 16000 / (1 << 17)
            heard.add(f"{event.label}/{round((pitch / FREQUENCIES[event.label] - 1) / 0.05)}.wav")
        assert heard == own


def test_levels_are_as_drawn(bank: Path, write) -> None:
    config = replace(ALONE, background_noise=True, gain_min_db=0, gain_max_db=0, snr_min_db=6, snr_max_db=6)
    for number in range(3):
        write(f"backgrounds/{number}.wav", np.random.default_rng(number).normal(0, 0.05, 40000).astype(np.float32))
    ratios = []
    sounds = sounds_of(bank)
    for seed in range(30):
        waveform, (e,), _ = soundscape(config, seed, sounds)
        a, b = round(e.onset * 16000), round(e.offset * 16000)
        noise = np.concatenate([waveform[:a], waveform[b:]])
        ratios.append(10 * np.log10((np.mean(waveform[a:b] ** 2) - np.mean(noise**2)) / np.mean(noise**2)))
    assert abs(np.median(ratios) - 6) < 0.5


def test_a_background_is_one_of_the_parts_own(bank: Path, write) -> None:
    """Backgrounds of three pitches; shorter than a clip, so that each goes on from its beginning."""
    for number in range(3):
        write(f"backgrounds/{number}.wav", tone(3000 + 500 * number, 2.0, level=0.1))
    opened = open_bank(bank, DRY)
    found = []
    for part in PARTS:
        sounds = BankSounds(opened, part)
        pieces = [sounds.background(np.random.default_rng(seed), 5 * 16000, 0.1) for seed in range(10)]
        assert all(np.sqrt(np.mean(piece**2)) == pytest.approx(0.1, rel=1e-3) for piece in pieces)
        peaks = {round(np.argmax(np.abs(np.fft.rfft(piece))) / 5 / 500) for piece in pieces}
        assert len(peaks) == 1
        found += peaks
    assert sorted(found) == [6, 7, 8]


def test_a_room_adds_a_tail_and_moves_no_onset(bank: Path) -> None:
    wet = replace(DRY, reverberation_probability=1.0, reverberation_min_db=-6, reverberation_max_db=-6,
                  reverberation_min_s=0.5, reverberation_max_s=0.5)  # fmt: skip
    sounds = sounds_of(bank, wet)
    tails = []
    for seed in range(30):
        waveform, (e,), _ = soundscape(ALONE, seed, sounds)
        a, b = round(e.onset * 16000), round(e.offset * 16000)
        assert not waveform[:a].any() and waveform[a : a + 400].any()
        if b + 1600 < len(waveform):
            tails.append(np.sqrt(np.mean(waveform[b : b + 1600] ** 2) / np.mean(waveform[a:b] ** 2)))
        assert not np.any(np.abs(waveform[b + 8000 :]) > 1e-6 * np.abs(waveform).max())
    assert 0.05 < np.median(tails) < 0.7
    tail = sounds.room(np.random.default_rng(0))
    assert tail is not None and tail[0] == 0
    assert 10 * np.log10(np.sum(tail.astype(np.float64) ** 2)) == pytest.approx(-6, abs=0.01)


def test_a_split_is_the_same_from_what_another_process_gets(bank: Path, tmp_path: Path) -> None:
    sounds = sounds_of(bank, BankConfig())
    one = write_split(tmp_path / "one", "test", 24, 3, SoundscapeConfig(), sounds=sounds)
    sent = pickle.dumps(sounds)
    assert len(sent) < 10_000  # decoded recordings stay where they are
    two = write_split(tmp_path / "two", "test", 24, 3, SoundscapeConfig(), sounds=pickle.loads(sent))
    assert one.read_text() == two.read_text()
    for a, b in list(zip(read_manifest(one), read_manifest(two), strict=True))[::6]:
        np.testing.assert_array_equal(read_audio(a.audio), read_audio(b.audio))
    clips = read_manifest(one)
    assert {e.label for clip in clips for e in clip.events} == set(FREQUENCIES)
    assert {q.text for clip in clips for q in clip.queries} == set(FREQUENCIES)
    assert all(e.caption == f"the sound of {e.label}" for clip in clips for e in clip.events)


def test_captions_come_from_the_classs_own_file(bank: Path) -> None:
    (bank / "bell/captions.txt").write_text("a bell rings\n\nsomeone rings a bell\n")
    config = SoundscapeConfig()
    heard = {e.caption for seed in range(30) for e in soundscape(config, seed, sounds_of(bank))[1] if e.label == "bell"}
    assert heard == {"a bell rings", "someone rings a bell"}


def test_decoded_recordings_stay_within_their_memory(bank: Path) -> None:
    sounds = sounds_of(bank, replace(DRY, memory_mib=0.05))
    for seed in range(20):
        soundscape(SoundscapeConfig(), seed, sounds)
    assert 0 < sounds._decoded._bytes <= 0.05 * 2**20
    assert sounds._decoded._bytes == sum(x.nbytes for x in sounds._decoded._kept.values())


def test_a_recording_that_changes_meanwhile_is_named(bank: Path, write) -> None:
    sounds = sounds_of(bank, replace(DRY, classes=["bell"]))
    for number in range(5):
        write(f"bell/{number}.wav", tone(500, 0.3))
    with pytest.raises(ValueError, match=r"bell/\d.wav: has changed since it was measured"):
        soundscape(ALONE, 0, sounds)


def test_a_grid_coarser_than_the_sounds_is_refused(bank: Path) -> None:
    with pytest.raises(ValueError, match="time_grid"):
        soundscape(replace(SoundscapeConfig(), time_grid=0.5), 0, sounds_of(bank))
