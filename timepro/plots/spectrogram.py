"""Log-mel spectrograms above a time axis."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from timepro.plots.canvas import GREY, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATE, HOP = 16000, 160  # of the audio that is drawn: Hz, samples
WINDOW = 512  # samples
_FFT, _MELS = 1024, 96
_MAX_COLUMNS = 3000
_WIDEST_RANGE_DB, _NARROWEST_RANGE_DB = 65.0, 30.0  # between the darkest and the lightest colour
_SILENCE_DB = -60.0  # a full-scale tone has about 42; without this bound, digital silence would be drawn as loud
_FREQUENCIES = {"0.5": 500, "1": 1000, "2": 2000, "4 kHz": 4000}


def mel(hertz: float | np.ndarray) -> float | np.ndarray:
    """Hertz to mel (O'Shaughnessy, 1987)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def log_mel(waveform: np.ndarray, hop: int) -> np.ndarray:
    """Mel power in dB, (96, frames), of a waveform (N,) at 16 kHz; frame i is centred on sample i * hop."""
    return mel_of_windows(np.pad(waveform, WINDOW // 2), hop)


def mel_of_windows(samples: np.ndarray, hop: int) -> np.ndarray:
    """Mel power in dB, (96, frames), of the windows that fit into samples (N,), one every ``hop``."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::hop] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2
    bins = mel(np.fft.rfftfreq(_FFT, 1 / RATE))
    step = mel(RATE / 2) / (_MELS + 1)
    centres = step * np.arange(1, _MELS + 1)[:, None]
    filters = np.clip(1 - np.abs(bins - centres) / step, 0, None)
    return 10 * np.log10(filters @ power.T + 1e-10)


def spectrogram(waveform: np.ndarray, max_columns: int = _MAX_COLUMNS) -> tuple[np.ndarray, float, float, float]:
    """What is drawn of a waveform (N,) at 16 kHz.

    Returns:
        decibels (96, frames), seconds between two frames, and the decibels of the darkest and the lightest colour.
    """
    hop = max(HOP, math.ceil(len(waveform) / max_columns))
    decibels = log_mel(waveform, hop)
    return decibels, hop / RATE, *colour_range(decibels)


def colour_range(decibels: np.ndarray) -> tuple[float, float]:
    """The decibels of the darkest and of the lightest colour."""
    peak = max(float(decibels.max()), _SILENCE_DB)
    return float(np.clip(np.percentile(decibels, 15), peak - _WIDEST_RANGE_DB, peak - _NARROWEST_RANGE_DB)), peak


def spectrogram_jpeg(waveform: np.ndarray, max_columns: int) -> bytes:
    """The picture of a waveform (N,) at 16 kHz alone, from its first to its last sample, for web pages."""
    import matplotlib
    from PIL import Image

    decibels, _, floor, peak = spectrogram(waveform, max_columns)
    shade = np.clip((decibels - floor) / max(peak - floor, 1e-6), 0, 1)
    colours = matplotlib.colormaps["magma"](shade[::-1], bytes=True)[..., :3]  # high frequencies on top
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(content, "JPEG", quality=80)
    return content.getvalue()


def draw_spectrogram(axes: Axes, waveform: np.ndarray, end: float) -> None:
    """Draw a waveform (N,) at 16 kHz over a time axis from 0 to ``end`` seconds, with a few frequencies named."""
    decibels, step, floor, peak = spectrogram(waveform)
    extent = (-step / 2, (decibels.shape[1] - 0.5) * step, 0, 1)
    axes.imshow(
        decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=floor, vmax=peak,
        interpolation="antialiased",
    )  # fmt: skip
    axes.set(xlim=(0, end), ylim=(0, 1), xticks=[])
    axes.set_yticks([float(mel(f) / mel(RATE / 2)) for f in _FREQUENCIES.values()], list(_FREQUENCIES))
    axes.tick_params(axis="y", labelsize=SMALL, labelcolor=GREY, color=GREY, length=2.5, pad=2, width=0.6)
    axes.spines[:].set_visible(False)
