"""In place of a model, for tests of what is around it: hears beeps by their level, exactly."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from timepro.inference.detections import ConfidenceKind, Detection

RATE = 16000
LABELS = {1000: "glass_breaking", 2000: "dog_bark"}  # Hz


class ScriptedAnswerer:
    """Answers with the stretches of a window that are loud, named by their frequency.

    Args:
        window_s: that it was made for.
        takes_s: time for an answer.
    """

    sample_rate = RATE
    kind: ConfidenceKind | None = "probability"

    def __init__(self, window_s: float = 2.0, takes_s: float = 0.0) -> None:
        self.window_s, self.takes_s, self.asked = window_s, takes_s, 0

    def answer(self, windows: Sequence[np.ndarray]) -> list[list[Detection]]:
        self.asked += len(windows)
        time.sleep(self.takes_s)
        return [self._beeps(window) for window in windows]

    def _beeps(self, window: np.ndarray) -> list[Detection]:
        block = 160
        loud = [np.abs(window[i : i + block]).max() > 0.2 for i in range(0, len(window), block)]
        edges = np.flatnonzero(np.diff([0, *loud, 0]))
        found = []
        for begin, end in zip(edges[::2] * block, edges[1::2] * block, strict=True):
            piece = window[begin:end]
            hertz = (np.diff(np.signbit(piece)).sum() / 2) / (len(piece) / RATE)
            label = LABELS[min(LABELS, key=lambda one: abs(one - hertz))]
            found.append(Detection(begin / RATE, min(end, len(window)) / RATE, label, 0.9))
        return found


def beeps(seconds: float, *when: tuple[float, float, int], noise: float = 0.01) -> np.ndarray:
    """Noise with beeps: (onset, offset, Hz) each."""
    time_axis = np.arange(round(seconds * RATE)) / RATE
    out = np.random.default_rng(0).normal(0, noise, len(time_axis)) if noise else np.zeros(len(time_axis))
    for onset, offset, hertz in when:
        inside = (time_axis >= onset) & (time_axis < offset)
        out[inside] += 0.5 * np.sin(2 * np.pi * hertz * time_axis[inside])
    return out.astype(np.float32)
