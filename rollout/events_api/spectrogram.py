"""The recording's picture for the page: at most 4096 columns, whatever its length, so an hour's has one for 0.9 s."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import numpy as np

from rollout.events_api.models import Spectrogram
from timepro.plots.running_spectrogram import RunningSpectrogram, grey_png
from timepro.plots.spectrogram import RATE


def picture(chunks: Iterable[np.ndarray]) -> Spectrogram:
    """The spectrogram of a recording.

    Args:
        chunks: its samples, arrays (N,) mono at 16 kHz, one behind the other.
    """
    running = RunningSpectrogram()
    for chunk in chunks:
        running.push(chunk)
    decibels, step = running.finish()
    png = base64.b64encode(grey_png(decibels)).decode()
    return Spectrogram(png=png, seconds_per_column=step, hertz=RATE / 2)
