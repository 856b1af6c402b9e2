"""Where a recording's sound begins and ends."""

from __future__ import annotations

import numpy as np
import pytest
from bank_recordings import padded, tone

from timepro.data.soundbank.measure import measure

MS = 16  # samples


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 8000])
@pytest.mark.parametrize("before", [0.0, 0.0031, 0.25, 0.2597])
def test_silence_at_both_ends_is_found_to_a_millisecond(write, rate: int, before: float) -> None:
    path = write("a/a.wav", padded(tone(400, 0.5, rate), before, 0.3, rate), rate)
    found = measure(path, 30.0, False)
    assert not found.problem and found.rate == rate
    assert abs(found.start - before * 16000) <= MS
    assert abs(found.stop - (before + 0.5) * 16000) <= MS
    assert found.pause == 0 and not found.clipped


def test_a_steady_noise_floor_is_not_part_of_the_sound(write) -> None:
    """A recording in a room: the floor lies 45 dB below the sound, and is not digital silence."""
    rng = np.random.default_rng(1)
    whole = np.concatenate([np.zeros(8000), tone(600, 0.4), np.zeros(12000)]) + 0.0012 * rng.standard_normal(26400)
    found = measure(write("a/a.wav", whole.astype(np.float32)), 30.0, False)
    assert abs(found.start - 8000) <= MS and abs(found.stop - 14400) <= MS
    loose = measure(write("a/b.wav", whole.astype(np.float32)), 60.0, False)
    assert loose.start < 200 and loose.stop > 26000  # where the threshold lies in the floor, nothing is trimmed


def test_a_decay_ends_where_it_falls_below_the_threshold(write) -> None:
    t = np.arange(32000) / 16000
    ring = (np.sin(2 * np.pi * 900 * t) * 10 ** (-60 * t / 20)).astype(np.float32)  # 60 dB a second
    ends = [measure(write(f"a/{db}.wav", 0.5 * ring), db, False).stop / 16000 for db in (20.0, 30.0, 40.0)]
    np.testing.assert_allclose(ends, [1 / 3, 1 / 2, 2 / 3], atol=0.06)
    assert ends == sorted(ends)


def test_what_cannot_be_used_is_a_problem_that_says_why(write) -> None:
    assert "silent" in measure(write("a/silent.wav", np.zeros(16000, np.float32)), 30.0, False).problem
    assert "lasts 0.0" in measure(write("a/click.wav", padded(tone(500, 0.02), 0.1, 0.1)), 30.0, False).problem
    long = np.tile(tone(500, 1.0), 121)
    assert "cut single sounds" in measure(write("a/long.wav", long), 30.0, False).problem
    broken = write("a/broken.wav", tone(500, 1.0))
    broken.write_bytes(broken.read_bytes()[:5000])
    found = measure(broken, 30.0, False).problem
    assert "cut short" in found and str(broken) not in found
    assert "a second at least" in measure(write("backgrounds/short.wav", tone(50, 0.5)), 30.0, True).problem
    assert "silent" in measure(write("backgrounds/silent.wav", np.zeros(32000, np.float32)), 30.0, True).problem


def test_clipping_and_pauses_are_noticed(write) -> None:
    flat = np.clip(3 * tone(400, 0.5, 44100, 0.9), -0.95, 0.95)
    assert measure(write("a/clipped.wav", flat, 44100), 30.0, False).clipped
    assert not measure(write("a/loud.wav", tone(400, 0.5, 44100, 0.99), 44100), 30.0, False).clipped
    twice = np.concatenate([tone(400, 0.3), np.zeros(8000, np.float32), tone(400, 0.3)])
    assert measure(write("a/twice.wav", twice), 30.0, False).pause == pytest.approx(0.5, abs=0.02)
