"""The synthesiser's sound classes.

Each generator makes a sound that is audible from its first sample to its last, because onset and offset are the exact
labels: pulsed sounds begin and end with a pulse, decaying ones stop while they can still be heard, and both edges are
ramps of 5 ms, short enough for the label and long enough not to click. Pauses inside an event stay under 0.2 s, well
below the 0.3 s that separate two events of one class, so that "one event or two" always has one answer. Edges that fade
in and out are the mix's business (``SoundscapeConfig.fade_in_max``), as are gains and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16000
"""Hz; every generator works at this rate."""

_EDGE = 80  # samples: 5 ms
_INDEX = np.arange(4 * SAMPLE_RATE, dtype=np.float32)  # sliced by every generator; longer than any sound
_RISE = (0.5 - 0.5 * np.cos(np.pi * (np.arange(_EDGE) + 0.5) / _EDGE)).astype(np.float32)

Generator = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class SoundClass:
    """A class: its label, how one says it, its generator, its range of durations in seconds and its captions.

    ``generate(rng, n)`` returns float32 of shape (n,) at 16 kHz with an RMS of 1; n is at most 4 s.
    """

    label: str
    spoken: str
    generate: Generator
    min_seconds: float
    max_seconds: float
    captions: tuple[str, ...]


def _phase(frequency: np.ndarray | float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Phase in radians, (n,) float32, of an oscillator whose frequency (Hz) is constant or an (n,) curve."""
    offset = 2 * np.pi * rng.random()
    if np.ndim(frequency) == 0:
        return _INDEX[:n] * np.float32(2 * np.pi * frequency / SAMPLE_RATE) + np.float32(offset)
    # Summed in float64: the rounding of a float32 sum would drift over a long sound.
    cycles = np.cumsum(frequency, dtype=np.float64)
    cycles *= 2 * np.pi / SAMPLE_RATE
    cycles += offset
    return cycles.astype(np.float32)


def _curve(values: np.ndarray | list[float], n: int) -> np.ndarray:
    """Evenly spaced values joined by straight lines, (n,) float32."""
    knots = np.arange(len(values)) * (n / (len(values) - 1))
    return np.interp(_INDEX[:n], knots, values).astype(np.float32)


def _noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """White noise with an RMS of 1, (n,) float32. Uniform: the spectrum of Gaussian noise at a fifth of the cost."""
    return (rng.random(n, dtype=np.float32) - np.float32(0.5)) * np.float32(12**0.5)


def edges(sound: np.ndarray) -> np.ndarray:
    """The sound (N,) itself, with ramps of 5 ms at both ends."""
    sound[:_EDGE] *= _RISE
    sound[-_EDGE:] *= _RISE[::-1]
    return sound


def _finish(sound: np.ndarray) -> np.ndarray:
    sound = edges(sound.astype(np.float32, copy=False))
    return sound / np.sqrt(np.dot(sound, sound) / len(sound))


def _pulses(rng: np.random.Generator, n: int, period: float, duty: float, make: Generator) -> np.ndarray:
    """About one pulse a ``period`` (seconds), filling ``duty`` of it; the first starts at 0, the last ends at n."""
    count = max(1, round(n / (period * SAMPLE_RATE) + 1 - duty))
    # Stretching the whole pattern keeps the pauses short; a lone pulse fills the event.
    size = n if count == 1 else int(n * duty / (count - 1 + duty))
    sound = np.zeros(n, np.float32)
    for start in np.linspace(0, n - size, count).astype(int):
        sound[start : start + size] += edges(make(rng, size))
    return sound


def _alarm_beep(rng: np.random.Generator, n: int) -> np.ndarray:
    """A high electronic tone, switched on and off."""
    frequency = rng.uniform(2300, 3100)

    def beep(rng: np.random.Generator, size: int) -> np.ndarray:
        phase = _phase(frequency, size, rng)
        return np.sin(phase) + 0.25 * np.sin(2 * phase)

    return _finish(_pulses(rng, n, rng.uniform(0.16, 0.24), rng.uniform(0.5, 0.6), beep))


def _siren(rng: np.random.Generator, n: int) -> np.ndarray:
    """A tone that wails up and down between about 550 and 1500 Hz."""
    wail = _phase(rng.uniform(0.8, 1.8), n, rng)
    phase = _phase(rng.uniform(900, 1100) + rng.uniform(300, 420) * np.sin(wail), n, rng)
    return _finish(np.sin(phase) + 0.3 * np.sin(2 * phase))


def _dog_bark(rng: np.random.Generator, n: int) -> np.ndarray:
    """Short rough barks whose pitch jumps up and falls."""
    pitch = rng.uniform(380, 560)

    def bark(rng: np.random.Generator, size: int) -> np.ndarray:
        phase = _phase(_curve([0.75 * pitch, 1.25 * pitch, pitch, 0.7 * pitch], size), size, rng)
        tone = np.sin(phase) + 0.8 * np.sin(2 * phase) + 0.6 * np.sin(3 * phase) + 0.3 * np.sin(4 * phase)
        return (tone + 0.6 * _noise(rng, size)) * _curve([0.8, 1.2, 0.8, 0.4], size)

    return _finish(_pulses(rng, n, rng.uniform(0.28, 0.36), rng.uniform(0.6, 0.7), bark))


def _glass_breaking(rng: np.random.Generator, n: int) -> np.ndarray:
    """A bright crash, then shards that ring between 3 and 7.5 kHz until the end."""
    hiss = _noise(rng, n + 1)
    hiss = np.diff(hiss) * np.geomspace(0.6, 0.15, n, dtype=np.float32)
    crash = min(n, 2400)
    hiss[:crash] *= 1 + 2.5 * np.exp(-_INDEX[:crash] / 500)
    shard = np.exp(-_INDEX[:1600] / 500)
    starts = np.append(rng.integers(0, max(1, n - 800), size=5 + n // 1500), [0, max(0, n - 700)])
    for start in starts:
        size = min(len(shard), n - start)
        level = rng.uniform(0.6, 1.4) * (1.0 - 0.6 * start / n)
        hiss[start : start + size] += level * shard[:size] * np.sin(_phase(rng.uniform(3000, 7500), size, rng))
    return _finish(hiss)


def _engine(rng: np.random.Generator, n: int) -> np.ndarray:
    """A low rumble: harmonics of 45 to 80 Hz and noise that throbs with them."""
    phase = _phase(_curve(rng.uniform(45, 80) * rng.uniform(0.9, 1.1, size=4), n), n, rng)
    tone = sum(np.sin(k * phase) / k**0.5 for k in range(1, 6))
    return _finish(tone * (1 + 0.4 * np.sin(0.5 * phase)) + 0.25 * _noise(rng, n) * (1 + np.sin(phase)))


def _speech(rng: np.random.Generator, n: int) -> np.ndarray:
    """Babble: glottal pulses at 100 to 220 Hz that excite two formants, which move with every syllable."""
    syllables = max(2, round(n / SAMPLE_RATE * rng.uniform(4, 5.5)))
    pitch = _curve(rng.uniform(110, 210) * rng.uniform(0.9, 1.1, size=syllables), n)
    pulse = np.exp(3 * (np.cos(_phase(pitch, n, rng)) - 1))
    first = np.cos(_phase(_curve(rng.uniform(350, 800, size=syllables), n), n, rng))
    second = np.cos(_phase(_curve(rng.uniform(1000, 2300, size=syllables), n), n, rng))
    loudness = 0.3 + np.sin(np.linspace(0, np.pi * syllables, n, dtype=np.float32)) ** 2
    return _finish(loudness * (pulse * (first + 0.7 * second) + 0.03 * _noise(rng, n)))


def _door_knock(rng: np.random.Generator, n: int) -> np.ndarray:
    """Dull damped thumps, a few a second."""
    panel, decay = rng.uniform(160, 300), rng.uniform(1.8, 2.2)

    def knock(rng: np.random.Generator, size: int) -> np.ndarray:
        phase = _phase(panel * rng.uniform(0.97, 1.03), size, rng)
        # The decay follows the pulse's length, so that every knock is audible to its end.
        fade = np.exp(-np.linspace(0, decay, size, dtype=np.float32))
        click = 0.8 * np.exp(-_INDEX[:size] / 60) * _noise(rng, size)
        return fade * (np.sin(phase) + 0.5 * np.sin(2.7 * phase)) + click

    return _finish(_pulses(rng, n, rng.uniform(0.18, 0.25), rng.uniform(0.45, 0.55), knock))


def _cat_meow(rng: np.random.Generator, n: int) -> np.ndarray:
    """One long vowel: the pitch rises and falls, the upper harmonics open in the middle."""
    top = rng.uniform(700, 950)
    phase = _phase(_curve([0.65 * top, 0.95 * top, top, 0.9 * top, 0.7 * top, 0.55 * top], n), n, rng)
    open_ = _curve([0.1, 0.6, 1.0, 0.9, 0.5, 0.1], n)
    upper = 0.9 * np.sin(3 * phase) + 0.8 * np.sin(4 * phase) + 0.4 * np.sin(5 * phase)
    sound = 0.6 * np.sin(phase) + 0.6 * np.sin(2 * phase) + open_ * upper
    return _finish(sound * _curve([0.7, 1.0, 1.0, 0.6], n))


_CLASSES = (
    SoundClass("alarm_beep", "alarm beep", _alarm_beep, 0.6, 2.0,
               ("an alarm beeps", "an electronic alarm is beeping", "a device gives high beeps")),
    SoundClass("siren", "siren", _siren, 1.0, 3.0,
               ("a siren wails", "an emergency siren rises and falls", "a siren is heard")),
    SoundClass("dog_bark", "dog bark", _dog_bark, 0.32, 1.6,
               ("a dog barks", "a dog is barking", "barking from a dog")),
    SoundClass("glass_breaking", "glass breaking", _glass_breaking, 0.4, 1.2,
               ("a pane of glass shatters", "glass breaks into pieces", "something made of glass is smashed")),
    SoundClass("engine", "engine", _engine, 1.0, 3.0,
               ("an engine rumbles", "a motor is running", "an engine idles at low speed")),
    SoundClass("speech", "speech", _speech, 0.6, 2.4,
               ("a person speaks", "someone is talking", "a voice says something")),
    SoundClass("door_knock", "door knock", _door_knock, 0.4, 1.4,
               ("someone knocks on a door", "a door is knocked on", "dull knocks on wood")),
    SoundClass("cat_meow", "cat meow", _cat_meow, 0.48, 1.2,
               ("a cat meows", "a cat is meowing", "one long meow of a cat")),
)  # fmt: skip

SOUNDS: dict[str, SoundClass] = {sound.label: sound for sound in _CLASSES}
"""Every class by its label."""
