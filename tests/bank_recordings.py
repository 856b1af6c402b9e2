"""Recordings for sound banks in tests: tones, with silence around them."""

from __future__ import annotations

import numpy as np

RATE = 16000
FREQUENCIES = {"bell": 2000.0, "engine": 150.0, "siren": 800.0}


def tone(frequency: float, seconds: float, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def padded(sound: np.ndarray, before: float, after: float, rate: int = RATE) -> np.ndarray:
    """Silence around a sound, but for noise 60 dB below full scale."""
    whole = np.concatenate([np.zeros(round(before * rate)), sound, np.zeros(round(after * rate))])
    return (whole + 1e-4 * np.random.default_rng(0).standard_normal(len(whole))).astype(np.float32)
