"""Training curves as small panels, one a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timepro.plots.canvas import DARK, DPI, GREY, LARGE, NORMAL, PALETTE, SMALL, WIDTH, Ruler, plain_style, save, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(path: Path, series: Mapping[str, Sequence[tuple[int, float]]], title: str) -> None:
    """Draw one small panel per metric: (step, value) as a thin line, its running mean as a bold one.

    Points are taken in the order of their steps. Values that are not finite leave a gap, and the panel says how many
    there are. Raises ValueError when there is no series.
    """
    if not series:
        raise ValueError(f"draw_curves: no series to draw for {title!r}; name at least one metric")
    with plain_style():
        save(_curves_figure(series, title), path)


def _curves_figure(series: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = {1: 1, 2: 2, 4: 2}.get(len(series), 3)
    rows = math.ceil(len(series) / columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.85 * rows + (0.9 if columns < 3 else 0)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.04)
    ruler = Ruler()
    shown = ruler.fit(title, LARGE + 1, WIDTH - 0.4)
    figure.suptitle(shown, fontsize=LARGE + 1, weight="bold", color=DARK, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(series) :]:
        panel.remove()
    for number, (panel, (name, points)) in enumerate(zip(panels, series.items(), strict=False)):
        missing = _draw_curve(panel, points)
        note = f"  ({missing} not finite)" if missing else ""
        fitted = ruler.fit(name, NORMAL, (WIDTH / columns) - 0.8 - ruler.width(note, NORMAL))
        panel.set_title(fitted + note, fontsize=NORMAL, loc="left", color=DARK, pad=5, parse_math=False)
        if number + columns >= len(series):
            panel.set_xlabel("step", fontsize=SMALL, color=GREY, labelpad=2)
    return figure


def _draw_curve(axes: Axes, points: Sequence[tuple[int, float]]) -> int:
    """Draw one metric; returns how many of its values are not finite."""
    from matplotlib.ticker import FuncFormatter

    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color="#b0b0b0", linewidth=0.7)
    axes.tick_params(labelsize=SMALL, labelcolor=GREY, color="#b0b0b0", length=2.5, width=0.7)
    axes.grid(color="#ebebeb", linewidth=0.7)
    axes.set_axisbelow(True)
    if not points:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", fontsize=NORMAL, color=GREY)
        axes.set(xticks=[], yticks=[])
        return 0
    ordered = sorted(points, key=lambda point: point[0])
    steps = np.array([step for step, _ in ordered], float)
    values = np.array([value for _, value in ordered], float)
    values[~np.isfinite(values)] = np.nan
    colour = PALETTE[4]
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(ordered) <= 12 else {}
    axes.plot(steps, values, color=colour, alpha=0.35, linewidth=0.8, **marker)
    axes.plot(steps, _running_mean(values), color=colour, linewidth=2.0, solid_capstyle="round")
    axes.xaxis.set_major_locator(ticks(5, whole=True))
    axes.yaxis.set_major_locator(ticks(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.margins(x=0.02, y=0.08)
    return int(np.isnan(values).sum())


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a tenth of the curve, (N,) to (N,); NaN is skipped and kept.

    Towards both ends the window shrinks to a third: whole it would hide a steep start, smaller it would show noise.
    """
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    at = np.arange(len(values))
    full = len(values) // 20
    half = np.clip(np.minimum(at, at[::-1]), full // 3, full)
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    means = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return np.where(known, means, np.nan)
