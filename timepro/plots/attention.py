"""The picture of `timepro attention`: a clip's spectrogram over a row a said time, dark where the model looked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timepro.attention import NEAR, TimeAttention
from timepro.data.audio import read_audio
from timepro.plots.canvas import GREY, LARGE, NORMAL, SMALL, WIDTH, Page, Ruler, plain_style, save, ticks
from timepro.plots.spectrogram import RATE, draw_spectrogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

_EDGE, _TITLE, _LINE, _SPECTROGRAM, _ROW, _TICKS = 0.12, 0.28, 0.19, 1.05, 0.26, 0.36  # inches
_GAP, _LAYERS = 0.2, 1.0
_COLUMN = 0.95  # of a column of numbers
_SAID = "#D55E00"
_SCALE = "how much more attention than if it were spread evenly over all timestamps"


def draw_attention(path: Path, clip: Path, attention: TimeAttention) -> None:
    """Draw the attention of every said time over the clip, and below it how close each layer looks.

    All rows share one scale, multiples of attention spread evenly over the timestamps, so that they can be compared;
    what is below 1 is white. The file's ending decides the format.
    """
    with plain_style():
        save(attention_figure(read_audio(clip, RATE), clip.name, attention), path)


def attention_figure(waveform: np.ndarray, name: str, attention: TimeAttention) -> Figure:
    """The figure that `draw_attention` writes, of a waveform (N,) at 16 kHz."""
    ruler = Ruler()
    names = [f"{s.seconds:.2f} s" for s in attention.said]
    left = _EDGE + max(0.75, *(ruler.width(text, NORMAL) for text in names)) + 0.1
    right = 2 * _COLUMN + 0.15
    head = _EDGE + _TITLE + 2 * _LINE + 0.05
    rows = _ROW * len(names)
    below = head + _SPECTROGRAM + rows + _TICKS
    page = Page(below + _GAP + _LAYERS + 0.5, left, WIDTH - left - right, ruler)
    _headings(page, name, attention)
    seconds = len(waveform) / RATE
    draw_spectrogram(page.axes(head, _SPECTROGRAM), waveform, seconds)
    axes = page.axes(head + _SPECTROGRAM, rows)
    mesh = _rows(axes, attention, seconds)
    _columns(page, head + _SPECTROGRAM, attention)
    for i, text in enumerate(names):
        page.text(left - 0.08, head + _SPECTROGRAM + (i + 0.5) * _ROW, text, NORMAL, ha="right")
    page.text(left - 0.16, head + _SPECTROGRAM + rows + 0.12, "time said", SMALL, GREY, ha="right")
    _scale(page, below + _GAP, mesh)
    _layers(page, below + _GAP, attention)
    return page.figure


def _headings(page: Page, name: str, attention: TimeAttention) -> None:
    layers = len(attention.near_by_layer)
    one = f"layer {attention.layer} of 0 to {layers - 1}"
    shown = f"mean over all {layers} layers" if attention.layer is None else one
    lines = [
        f"{attention.question}   Answer: {attention.answer}",
        f"Attention from each time of the answer to the prompt's timestamps ({shown}, mean over heads).",
    ]
    page.text(_EDGE, _EDGE + _TITLE / 2, page.ruler.fit(name, LARGE, WIDTH - 2 * _EDGE), LARGE, weight="bold")
    for number, line in enumerate(lines):
        y = _EDGE + _TITLE + (number + 0.5) * _LINE
        page.text(_EDGE, y, page.ruler.fit(line, SMALL + 0.5, WIDTH - 2 * _EDGE), SMALL + 0.5, GREY)


def _rows(axes: Axes, attention: TimeAttention, seconds: float) -> QuadMesh:
    """One strip a said time; timestamps stand at the beginning of the stretch that they are drawn over."""
    from matplotlib.colors import LogNorm

    edges = np.append(attention.times, max(seconds, attention.times[-1] + 1e-3))
    count = len(attention.said)
    even = 1 / len(attention.times)
    multiples = np.array([said.weights / max(said.weights.sum(), 1e-12) / even for said in attention.said])
    norm = LogNorm(1, max(10.0, float(multiples.max())), clip=True)
    mesh = axes.pcolormesh(
        edges, np.arange(count + 1), np.maximum(multiples, 1e-6)[::-1], cmap="Blues", norm=norm, gid="times"
    )
    for i, said in enumerate(attention.said):
        axes.vlines(said.seconds, count - i - 1, count - i, color=_SAID, linewidth=1.2)
    axes.hlines(range(1, count), 0, seconds, color="white", linewidth=1.5)
    axes.set(xlim=(0, seconds), ylim=(0, count), yticks=[])
    axes.tick_params(labelsize=SMALL, colors=GREY)
    below = "time in the clip (s); the line in each row is the time said"
    axes.set_xlabel(below, fontsize=SMALL, color=GREY, labelpad=1)
    return mesh


def _columns(page: Page, top: float, attention: TimeAttention) -> None:
    """Two numbers a row: the share of all attention that is on timestamps, and the share of that near the time."""
    places = [page.left + page.width + _COLUMN * (k + 1) for k in range(2)]
    headings = ("on timestamps,", "of all attention"), (f"within {NEAR} s,", "of that")
    for x, lines in zip(places, headings, strict=True):
        for number, line in enumerate(lines):
            page.text(x, top - 0.28 + 0.15 * number, line, SMALL, GREY, ha="right")
    for i, said in enumerate(attention.said):
        for x, share in zip(places, (said.on_timestamps, said.near), strict=True):
            page.text(x, top + (i + 0.5) * _ROW, f"{100 * share:.1f} %", SMALL, ha="right")
    middle = top + len(attention.said) * _ROW + 0.12
    page.text(places[1], middle, f"spread evenly: {100 * attention.chance:.1f} %", SMALL, GREY, ha="right")


def _scale(page: Page, top: float, mesh: QuadMesh) -> None:
    """The colour bar, below the rows on the left."""
    width, height = 0.42 * WIDTH, 0.16
    place = ((_EDGE + 0.1) / WIDTH, 1 - (top + 0.4) / page.height, width / WIDTH, height / page.height)
    axes = page.figure.add_axes(place)
    bar = page.figure.colorbar(mesh, cax=axes, orientation="horizontal")
    bar.ax.minorticks_off()
    highest: Any = mesh.norm.vmax
    marks = [m for m in (1, 2, 5, 10, 20, 50, 100, 200, 500) if m <= highest]
    bar.set_ticks(marks, labels=[f"{m}\u00d7" if m > 1 else "\u22641\u00d7" for m in marks])
    bar.ax.tick_params(labelsize=SMALL, colors=GREY)
    page.text(_EDGE + 0.1, top + 0.1, page.ruler.fit(_SCALE, SMALL, width), SMALL, GREY)


def _layers(page: Page, top: float, attention: TimeAttention) -> None:
    """How close each layer looks, as bars, below the rows on the right."""
    left, width = 0.53 * WIDTH, 0.42 * WIDTH
    place = (left / WIDTH, 1 - (top + _LAYERS) / page.height, width / WIDTH, (_LAYERS - 0.22) / page.height)
    axes = page.figure.add_axes(place)
    near = 100 * attention.near_by_layer
    shown = range(len(near)) if attention.layer is None else [attention.layer]
    axes.bar(range(len(near)), near, color=["#2171B5" if i in shown else "#BDD7E7" for i in range(len(near))])
    axes.axhline(100 * attention.chance, color=_SAID, linewidth=1, linestyle="--")
    axes.set(xlim=(-0.6, len(near) - 0.4), ylim=(0, 1.15 * max(near.max(), 100 * attention.chance)))
    axes.xaxis.set_major_locator(ticks(14, whole=True))
    axes.yaxis.set_major_locator(ticks(4))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, colors=GREY)
    axes.set_xlabel("layer (dark: shown above); the dashed line is attention spread evenly", fontsize=SMALL, color=GREY)
    page.text(left, top + 0.1, f"% of the attention on timestamps within {NEAR} s of the time said", SMALL, GREY)
