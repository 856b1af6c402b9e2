"""What the pictures share: a page measured in inches, texts that fit, spectrograms, atomic PNG files.

Figures are made on a canvas of their own, so no backend is chosen for the rest of the program, and matplotlib is
imported where a picture is drawn, so importing this module costs nothing.
"""

from __future__ import annotations

import math
import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

DPI, WIDTH = 140, 10.0  # 1400 pixels
SMALL, NORMAL, LARGE = 7.5, 8.5, 10.0  # points
GREY, DARK = "#6b6b6b", "#1c1c1c"
# Okabe and Ito (2008), told apart in every common colour vision deficiency; grey for their black, which texts have.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#9A9A9A")
RATE, HOP = 16000, 160  # of the audio a spectrogram is made of: Hz, samples
_WINDOW, _FFT, _MELS = 512, 1024, 96


class Ruler:
    """Measures texts, in inches."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import RendererAgg

        self._renderer = RendererAgg(8, 8, DPI)

    def width(self, text: str, size: float) -> float:
        """Inches that one line of text takes at a size in points."""
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=size)
        return self._renderer.get_text_width_height_descent(text, font, ismath=False)[0] / DPI

    def fit(self, text: str, size: float, width: float) -> str:
        """The text, shortened by an ellipsis where it is wider than ``width``."""
        text = " ".join(text.split())  # a line break would leave its place
        if self.width(text, size) <= width:
            return text
        kept = text
        while kept and self.width(kept + "…", size) > width:
            kept = kept[:-1]
        return kept.rstrip(" _-") + "…"


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, height: float, left: float, width: float, ruler: Ruler) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height, self.left, self.width, self.ruler = math.ceil(height * DPI) / DPI, left, width, ruler
        self.figure = Figure(figsize=(WIDTH, self.height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, top: float, height: float) -> Axes:
        """New axes over the page's width, ``top`` inches down."""
        bottom = 1 - (top + height) / self.height
        return self.figure.add_axes((self.left / WIDTH, bottom, self.width / WIDTH, height / self.height))

    def text(self, x: float, y: float, text: str, size: float, colour: str = DARK, **style: str) -> None:
        """Write a text at x, y (inches), centred on y unless ``va`` says otherwise; size in points."""
        style = {"va": "center"} | style
        # Labels are data: a "$" in one must not start a formula.
        self.figure.text(x / WIDTH, 1 - y / self.height, text, fontsize=size, color=colour, parse_math=False, **style)


def mel(hertz: float | np.ndarray) -> float | np.ndarray:
    """Hertz to mel (O'Shaughnessy, 1987)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def log_mel(waveform: np.ndarray, hop: int) -> np.ndarray:
    """Mel power in dB, (96, frames), of a waveform (N,) at 16 kHz; frame i is centred on sample i * hop."""
    padded = np.pad(waveform, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::hop] * np.hanning(_WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2
    bins = mel(np.fft.rfftfreq(_FFT, 1 / RATE))
    step = mel(RATE / 2) / (_MELS + 1)
    centres = step * np.arange(1, _MELS + 1)[:, None]
    filters = np.clip(1 - np.abs(bins - centres) / step, 0, None)
    return 10 * np.log10(filters @ power.T + 1e-10)


def ticks(most: int, whole: bool = False) -> MaxNLocator:
    """Places at most this many steps between round numbers, ``whole`` ones for counts."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, steps=[1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10], integer=whole)


def plain_style() -> AbstractContextManager[None]:
    """Settings that a user's matplotlibrc must not change."""
    import matplotlib

    return matplotlib.rc_context(
        {"font.family": "DejaVu Sans", "hatch.linewidth": 0.5, "savefig.bbox": None, "axes.unicode_minus": True,
         "text.usetex": False, "axes.facecolor": "white", "figure.facecolor": "white"}
    )  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in one step, making its folder where needed: readers see the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            figure.savefig(out, format="png", dpi=DPI)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
