"""The sounds of `detect.py`, with exact times: a dense stream that can be cut into single clips, and a sparse day.

Both are made of the synthesiser's classes, from public seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from timepro.data.sounds import SAMPLE_RATE, SOUNDS
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import soundscape
from timepro.events import Event

PAUSE_S = 0.32
"""Between two clips of the stream: their events never touch."""
SCENE_S = 120.0
"""Seconds of the stream under one background."""
GLASS = "glass_breaking"
BACKGROUND_DB = -66.0
"""RMS of the day's silence in dB of full scale, below the monitor's gate."""
_APART_S = 40.0  # from one breaking glass to the next: longer than an alert's cool-down


@dataclass(frozen=True)
class Stream:
    """A dense stream: samples (N,), its events in order, and (start, end) of its clips in seconds, which cut none."""

    samples: np.ndarray
    events: list[Event]
    clips: list[tuple[float, float]]


def dense_stream(seconds: float, seed: int, classes: list[str]) -> Stream:
    """Clips as in training, one behind the other over a background that stays the same for `SCENE_S`."""
    config = SoundscapeConfig(classes=classes, background_noise=False, max_duration=10.0 - PAUSE_S)
    rng = np.random.default_rng([seed, 1])
    pieces: list[np.ndarray] = []
    events: list[Event] = []
    clips: list[tuple[float, float]] = []
    at, number = 0.0, 0
    while at < seconds:
        scene, begun = [], at
        while at < begun + SCENE_S:
            mix, found, _ = soundscape(config, seed * 1_000_000 + number)
            scene.append(np.pad(mix, (0, round(PAUSE_S * SAMPLE_RATE))))
            events += [Event(round(at + e.onset, 3), round(at + e.offset, 3), e.label) for e in found]
            end = round(at + len(scene[-1]) / SAMPLE_RATE, 6)
            clips.append((at, end))
            at, number = end, number + 1
        sound = np.concatenate(scene)
        loud = float(np.sqrt(np.mean(sound[np.abs(sound) > 1e-6] ** 2)))
        snr = rng.uniform(config.snr_min_db, config.snr_max_db)
        pieces.append(sound + background(rng, len(sound), loud * 10 ** (-snr / 20)))
    samples = np.concatenate(pieces)
    return Stream(samples / np.float32(max(1.0, np.abs(samples).max())), sorted(events), clips)


def background(rng: np.random.Generator, n: int, rms: float) -> np.ndarray:
    """Pink or white noise, (n,) float32."""
    noise = rng.random(n, dtype=np.float32) - np.float32(0.5)
    if rng.random() < 0.5:
        b, a = ([0.049922, -0.095994, 0.050613, -0.004409], [1.0, -2.494956, 2.017266, -0.522189])
        noise = lfilter(np.float32(b), np.float32(a), noise)
    return noise * np.float32(rms / np.sqrt(np.mean(noise[: 1 << 20] ** 2)))


# ---------------------------------------------------------------- a sparse day


@dataclass(frozen=True)
class Hour:
    """An hour of the day: samples (N,) and the breaking glasses in it, in seconds from its start."""

    samples: np.ndarray
    glasses: list[tuple[float, float]]


def sparse_day(hours: int, glasses_an_hour: float, scenes_an_hour: int, seed: int) -> Iterator[Hour]:
    """Silence with traffic and speech, and breaking glasses: a third alone, a third in traffic, a third in speech."""
    owed = 0.0
    for hour in range(hours):
        rng = np.random.default_rng([seed, hour])
        owed += glasses_an_hour
        count, owed = int(owed + 1e-9), owed - int(owed + 1e-9)
        yield _hour(rng, count, scenes_an_hour)


def _hour(rng: np.random.Generator, glasses: int, scenes: int) -> Hour:
    minute = np.float32(10 ** (BACKGROUND_DB / 20)) * rng.standard_normal(60 * SAMPLE_RATE, dtype=np.float32)
    samples = np.tile(minute, 60)
    slots = max(glasses + scenes, 1)
    starts = np.arange(slots) * ((3600 - 2 * _APART_S) / slots) + _APART_S / 2
    if glasses + scenes and starts[1 % slots] - starts[0] < _APART_S and slots > 1:
        raise ValueError(f"{slots} sounds in an hour are closer than {_APART_S:g} s; ask for fewer")
    with_glass = set(rng.permutation(slots)[:glasses].tolist())
    found = []
    for slot, begin in enumerate(starts):
        at = round((begin + rng.uniform(0, 5)) / 0.04) * 0.04
        kind = rng.integers(3) if slot in with_glass else rng.integers(1, 3)
        level = 10 ** (rng.uniform(-34, -20) / 20)
        if kind:
            scene = (_traffic if kind == 1 else _speech)(rng) * np.float32(level)
            _add(samples, at, scene)
        else:
            scene = np.zeros(10 * SAMPLE_RATE, np.float32)
        if slot in with_glass:
            low, high = SOUNDS[GLASS].min_seconds, SOUNDS[GLASS].max_seconds
            size = round(rng.uniform(low, high) / 0.04) * 0.04
            onset = round((at + rng.uniform(0, max(0.0, len(scene) / SAMPLE_RATE - size))) / 0.04) * 0.04
            gain = level * 10 ** (rng.uniform(-6, 12) / 20)  # beside what else sounds
            _add(samples, onset, SOUNDS[GLASS].generate(rng, round(size * SAMPLE_RATE)) * np.float32(gain))
            found.append((round(onset, 3), round(onset + size, 3)))
    return Hour(samples, found)


def _add(samples: np.ndarray, at: float, sound: np.ndarray) -> None:
    begin = round(at * SAMPLE_RATE)
    samples[begin : begin + len(sound)] += sound


def _traffic(rng: np.random.Generator) -> np.ndarray:
    """A vehicle that comes and goes in 4 to 12 s, RMS about 1 where it is nearest."""
    size = round(rng.uniform(4, 12) * SAMPLE_RATE)
    hop, fade = 3 * SAMPLE_RATE, SAMPLE_RATE // 2
    ramp = np.linspace(0, 1, fade, dtype=np.float32) ** 0.5
    out = np.zeros(size + 4 * SAMPLE_RATE, np.float32)
    for begin in range(0, size, hop):
        piece = SOUNDS["engine"].generate(rng, hop + fade)
        piece[:fade] *= ramp
        piece[-fade:] *= ramp[::-1]
        out[begin : begin + len(piece)] += piece
    swell = np.sin(np.linspace(0, np.pi, size, dtype=np.float32))
    return out[:size] * np.clip(swell, 0, None) ** np.float32(0.7)


def _speech(rng: np.random.Generator) -> np.ndarray:
    """2 to 5 utterances with pauses, RMS about 1 while somebody speaks."""
    pieces = []
    for _ in range(int(rng.integers(2, 6))):
        low, high = SOUNDS["speech"].min_seconds, SOUNDS["speech"].max_seconds
        pieces += [
            SOUNDS["speech"].generate(rng, round(rng.uniform(low, high) * SAMPLE_RATE)),
            np.zeros(round(rng.uniform(0.2, 1.0) * SAMPLE_RATE), np.float32),
        ]
    return np.concatenate(pieces)
