"""Where a soundscape's sounds come from: generated here, or recordings of a sound bank (`timepro.data.soundbank`)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from scipy.signal import lfilter

from timepro.data.sounds import SOUNDS
from timepro.data.soundscape import SoundscapeConfig

_NOISES = {  # numerator, denominator of the filter that colours white noise
    "white": None,
    "pink": ([0.049922, -0.095994, 0.050613, -0.004409], [1.0, -2.494956, 2.017266, -0.522189]),
    "brown": ([1.0], [1.0, -0.97]),
}


class Sounds(Protocol):
    """What `synth.write_split` mixes. Everything is drawn from the generator that it is given."""

    def labels(self, config: SoundscapeConfig) -> list[str]:
        """The classes; raises ValueError for a configuration that they cannot be mixed with."""

    def spoken(self, label: str) -> str:
        """How one says a class."""

    def captions(self, label: str) -> tuple[str, ...]:
        """How one describes it; at least one."""

    def draw(self, config: SoundscapeConfig, rng: np.random.Generator, label: str) -> tuple[Any, int]:
        """Something to mix in, and its length in steps of the time grid."""

    def samples(self, rng: np.random.Generator, label: str, piece: Any, n: int) -> np.ndarray:
        """What was drawn, (n,) float32 with an RMS of 1, audible from its first sample to its last."""

    def background(self, rng: np.random.Generator, n: int, rms: float) -> np.ndarray:
        """(n,) float32 at this RMS."""

    def room(self, rng: np.random.Generator) -> np.ndarray | None:
        """A room's impulse response without the direct sound, (K,), for all events of a clip; None for none."""


class Synthesised:
    """The classes of `timepro.data.sounds`."""

    def labels(self, config: SoundscapeConfig) -> list[str]:
        return config.classes

    def spoken(self, label: str) -> str:
        return SOUNDS[label].spoken

    def captions(self, label: str) -> tuple[str, ...]:
        return SOUNDS[label].captions

    def draw(self, config: SoundscapeConfig, rng: np.random.Generator, label: str) -> tuple[None, int]:
        sound = SOUNDS[label]
        return None, grid_length(rng, sound.min_seconds, sound.max_seconds, config.time_grid)

    def samples(self, rng: np.random.Generator, label: str, piece: None, n: int) -> np.ndarray:
        return SOUNDS[label].generate(rng, n)

    def background(self, rng: np.random.Generator, n: int, rms: float) -> np.ndarray:
        return coloured_noise(rng, n, rms)

    def room(self, rng: np.random.Generator) -> None:
        return None


def grid_length(rng: np.random.Generator, shortest: float, longest: float, grid: float) -> int:
    """A random number of grid steps within [shortest, longest] seconds."""
    low = int(np.ceil(shortest / grid - 1e-6))
    return int(rng.integers(low, max(low, int(longest / grid + 1e-6)) + 1))


def coloured_noise(rng: np.random.Generator, n: int, rms: float) -> np.ndarray:
    """White, pink or brown noise with this RMS, (n,) float32."""
    coefficients = _NOISES[("white", "pink", "brown")[int(rng.integers(3))]]
    noise = rng.random(n, dtype=np.float32)
    noise -= np.float32(0.5)
    if coefficients is not None:
        b, a = coefficients
        noise = lfilter(np.asarray(b, np.float32), np.asarray(a, np.float32), noise)
    noise *= np.float32(rms / np.sqrt(np.dot(noise, noise) / n))
    return noise
