"""The picture of `timepro attention`: a clip's spectrogram over a row a said time, dark where the model looked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timepro.attention import TimeAttention
from timepro.data.audio import read_audio
from timepro.plots.canvas import DARK, GREY, LARGE, NORMAL, SMALL, WIDTH, Page, Ruler, plain_style, save
from timepro.plots.spectrogram import RATE, draw_spectrogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EDGE, _TITLE, _SPECTROGRAM, _ROW, _TICKS = 0.12, 0.3, 1.05, 0.26, 0.3  # inches


def draw_attention(path: Path, clip: Path, attention: TimeAttention) -> None:
    """Draw the attention of every said time over the clip, and write a PNG in one step.

    Each row is scaled to its own largest weight, which is written at its end as a share of all attention; the mark is
    the time said.
    """
    with plain_style():
        save(_figure(read_audio(clip, RATE), clip.name, attention), path)


def _figure(waveform: np.ndarray, name: str, attention: TimeAttention) -> Figure:
    ruler = Ruler()
    names = [f"{s.seconds:.2f} s" for s in attention.said]
    ends = [f"{100 * s.on_timestamps:.0f} % on timestamps, {100 * s.near:.0f} % of it near" for s in attention.said]
    left = _EDGE + max(ruler.width(text, NORMAL) for text in names) + 0.1
    right = max(ruler.width(text, SMALL) for text in ends) + 0.2
    rows = _ROW * len(names)
    page = Page(_EDGE + _TITLE + _SPECTROGRAM + rows + _TICKS, left, WIDTH - left - right, ruler)
    title = ruler.fit(f"{name}: {attention.answer}", LARGE, WIDTH - 2 * _EDGE)
    page.text(_EDGE, _EDGE + _TITLE / 2, title, LARGE, weight="bold")
    seconds = len(waveform) / RATE
    draw_spectrogram(page.axes(_EDGE + _TITLE, _SPECTROGRAM), waveform, seconds)
    top = _EDGE + _TITLE + _SPECTROGRAM
    axes = page.axes(top, rows)
    _rows(axes, attention, seconds)
    for i, (text, end) in enumerate(zip(names, ends, strict=True)):
        middle = top + (i + 0.5) * _ROW
        page.text(left - 0.08, middle, text, NORMAL, ha="right")
        page.text(left + page.width + 0.08, middle, end, SMALL, GREY)
    return page.figure


def _rows(axes: Axes, attention: TimeAttention, seconds: float) -> None:
    """One strip a said time; timestamps stand at the beginning of the stretch that they are drawn over."""
    edges = np.append(attention.times, max(seconds, attention.times[-1] + 1e-3))
    count = len(attention.said)
    for i, said in enumerate(attention.said):
        strip = (said.weights / max(said.weights.max(), 1e-12))[None]
        axes.pcolormesh(edges, [count - i - 1, count - i], strip, cmap="Blues", vmin=0, vmax=1, gid=f"time:{i}")
        axes.vlines(said.seconds, count - i - 1, count - i, color="#D55E00", linewidth=1.2)
    axes.hlines(range(1, count), 0, seconds, color="white", linewidth=1.5)
    axes.set(xlim=(0, seconds), ylim=(0, count), yticks=[])
    axes.tick_params(labelsize=SMALL, colors=GREY)
    axes.set_xlabel("s", fontsize=SMALL, color=DARK, labelpad=1)
