"""Pictures of where answers go wrong, and of many runs' training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timepro.analysis import INVENTED, MISSED, Boundaries
from timepro.plots.canvas import DARK, DPI, GREY, NORMAL, PALETTE, SMALL, WIDTH, Ruler, plain_style, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_S = 1.0  # boundary errors beyond are counted at the edge
_GRID = 0.04  # seconds between two timestamps
_CLASSES = 30  # with a row of their own
_COLOURS = [PALETTE[i] for i in (4, 5, 2, 3, 0, 1)]
_LINES = ("-", "--", ":", "-.")  # tell arms apart once the colours are used up


def draw_errors(path: Path, systems: Mapping[str, Boundaries], title: str, collar: float = 0.2) -> None:
    """Distributions of onset and offset errors, and the median by class and by duration.

    Raises:
        ValueError: no system has found any event.
    """
    systems = {name: b for name, b in systems.items() if len(b.onset)}
    if not systems:
        raise ValueError("no answer has an event that overlaps a right one; there are no boundaries to compare")
    with plain_style():
        figure = new_figure(5.9, title=title)
        axes = figure.subplots(2, 2)
        for k, edge in enumerate(("onset", "offset")):
            _histogram(axes[0, k], {name: getattr(b, edge) for name, b in systems.items()}, edge, collar)
        _by_class(axes[1, 0], systems)
        _by_duration(axes[1, 1], systems)
        save(figure, path)


def draw_confusion(path: Path, title: str, labels: Sequence[str], counts: np.ndarray) -> None:
    """The matrix of `analysis.confusion`, rows as shares of the reference's events."""
    with plain_style():
        side = min(WIDTH, 2.5 + 0.45 * len(labels))
        figure = new_figure(side * 0.85, side)
        axes = figure.subplots()
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(*counts.shape):
            if counts[i, j]:
                colour = "white" if share[i, j] > 0.6 else DARK
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=SMALL, color=colour)
        axes.set_xticks(range(len(labels) + 1), [*labels, MISSED], rotation=45, ha="right", fontsize=SMALL)
        axes.set_yticks(range(len(labels) + 1), [*labels, INVENTED], fontsize=SMALL)
        axes.set_xlabel("answered", fontsize=NORMAL)
        axes.set_ylabel("right", fontsize=NORMAL)
        axes.set_title(title, fontsize=NORMAL, loc="left", parse_math=False)
        save(figure, path)


def draw_rewards(path: Path, rewards: Mapping[int, np.ndarray], title: str) -> None:
    """How the rewards of single answers are spread at each stretch of the training: darker, more answers."""
    steps = sorted(rewards)
    values = [rewards[s][~np.isnan(rewards[s])] for s in steps]
    if not any(len(v) for v in values):
        raise ValueError("no answer has a reward; there is nothing to draw")
    low, high = min(v.min() for v in values if len(v)), max(v.max() for v in values if len(v))
    edges = np.linspace(low, high if high > low else low + 1.0, 26)
    columns = np.array_split(np.arange(len(steps)), min(60, len(steps)))
    shares = []
    for column in columns:
        together = np.concatenate([values[i] for i in column])
        shares.append(np.histogram(together, edges)[0] / max(len(together), 1))
    with plain_style():
        figure = new_figure(3.2)
        axes = figure.subplots()
        ends = [steps[0] - 1, *(steps[column[-1]] for column in columns)]
        mesh = axes.pcolormesh(ends, edges, np.array(shares).T, cmap="Blues", vmin=0)
        means = [np.concatenate([values[i] for i in column]).mean() for column in columns]
        middles = [(a + b) / 2 for a, b in zip(ends, ends[1:], strict=False)]
        axes.plot(middles, means, color=PALETTE[5], linewidth=1.5, label="mean")
        figure.colorbar(mesh, ax=axes, label="share of answers")
        axes.set_xlabel("step", fontsize=NORMAL)
        axes.set_ylabel("reward", fontsize=NORMAL)
        axes.legend(fontsize=SMALL, frameon=False)
        axes.set_title(title, fontsize=NORMAL, loc="left", parse_math=False)
        save(figure, path)


def arm_of(name: str) -> str:
    """A run's name without its seed: runs that differ in nothing else are one arm."""
    return re.sub(r"[,_.-]?seed[=_-]?\d+", "", name).strip(",_.-") or "all seeds"


def draw_bands(path: Path, runs: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], title: str) -> None:
    """Training curves, a panel a metric: each arm's mean over its seeds, with their range as a band.

    Args:
        runs: by name of the run, then of the metric: (step, value).

    Raises:
        ValueError: runs without any of the metrics.
    """
    keys = list(dict.fromkeys(key for one in runs.values() for key in one))
    if not keys:
        raise ValueError("none of the runs has recorded these metrics (metrics.grpo.jsonl)")
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for name, curves in runs.items():
        arms.setdefault(arm_of(name), []).append(curves)
    with plain_style():
        rows = -(-len(keys) // 2)
        figure = new_figure(0.8 + 2.4 * rows, title=title)
        panels = figure.subplots(rows, 2 if len(keys) > 1 else 1, squeeze=False).ravel()
        for panel in panels[len(keys) :]:
            panel.remove()
        for panel, key in zip(panels, keys, strict=False):
            for k, (arm, members) in enumerate(arms.items()):
                found = [dict(curves[key]) for curves in members if key in curves]
                steps = sorted(set.intersection(*map(set, found))) if found else []
                if not steps:
                    continue
                values = np.array([[one[s] for s in steps] for one in found])
                colour, line = _COLOURS[k % len(_COLOURS)], _LINES[k // len(_COLOURS) % len(_LINES)]
                name = f"{arm} ({len(found)})"
                panel.plot(steps, values.mean(axis=0), color=colour, linestyle=line, linewidth=1.5, label=name)
                if len(found) > 1:
                    panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
            plain(panel, key, "step")
        panels[0].legend(fontsize=SMALL, frameon=False)
        save(figure, path)


def new_figure(height: float, width: float = WIDTH, title: str = "") -> Figure:
    """A figure of so many inches on a canvas of its own; a title that is too long is cut."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        shown = Ruler().fit(title, NORMAL, width - 0.3)
        figure.suptitle(shown, fontsize=NORMAL, x=0.01, ha="left", color=DARK, parse_math=False)
    return figure


def plain(axes: Axes, title: str, below: str) -> None:
    """Give a panel its title, the name of its horizontal axis, a grid and thin lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, labelcolor=GREY, color="#b0b0b0")
    axes.grid(color="#ebebeb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=NORMAL, loc="left", color=DARK, parse_math=False)
    axes.set_xlabel(below, fontsize=SMALL, color=GREY)


def _histogram(axes: Axes, errors: Mapping[str, np.ndarray], edge: str, collar: float) -> None:
    # Times lie on a grid: bins are centred on its multiples, where rounding cannot move a value into the next one.
    edges = np.arange(-_SHOWN_S - _GRID / 2, _SHOWN_S + _GRID, _GRID)
    for k, (name, values) in enumerate(errors.items()):
        share = np.histogram(np.clip(values, -_SHOWN_S, _SHOWN_S), edges)[0] / len(values)
        within = np.mean(np.abs(values) <= collar)
        label = f"{name}: median {np.median(values):+.2f} s, {within:.0%} within {collar:g} s"
        axes.stairs(share, edges, color=_COLOURS[k % len(_COLOURS)], linewidth=1.4, label=label)
    axes.axvspan(-collar, collar, color="#e8e8e8", zorder=0)
    plain(axes, f"{edge}: answer minus reference", "seconds; late is to the right")
    axes.set_ylim(top=axes.get_ylim()[1] * (1.1 + 0.09 * len(errors)))  # room for the legend
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left")


def _by_class(axes: Axes, systems: Mapping[str, Boundaries]) -> None:
    counts = Counter(label for b in systems.values() for label in b.label)
    labels = sorted(label for label, _ in counts.most_common(_CLASSES))
    left_out = f"; the {_CLASSES} most frequent of {len(counts)}" if len(counts) > _CLASSES else ""
    for k, b in enumerate(systems.values()):
        own = np.array(b.label)
        onset = [np.median(b.onset[own == label]) if (own == label).any() else np.nan for label in labels]
        offset = [np.median(b.offset[own == label]) if (own == label).any() else np.nan for label in labels]
        at, colour = np.arange(len(labels)) + 0.15 * k, _COLOURS[k % len(_COLOURS)]
        axes.plot(onset, at, "o", color=colour, markersize=4)
        axes.plot(offset, at, "x", color=colour, markersize=5)
    axes.set_yticks(range(len(labels)), [label or "(event)" for label in labels], fontsize=SMALL)
    axes.axvline(0, color=GREY, linewidth=0.8)
    plain(axes, f"median error by class (o onset, x offset){left_out}", "seconds")


def _by_duration(axes: Axes, systems: Mapping[str, Boundaries]) -> None:
    every = np.concatenate([b.duration for b in systems.values()])
    edges = np.unique(np.quantile(every, np.linspace(0, 1, 7)))
    for k, b in enumerate(systems.values()):
        bins = np.clip(np.searchsorted(edges, b.duration, side="right") - 1, 0, max(len(edges) - 2, 0))
        used = sorted(set(bins.tolist()))
        middle = [b.duration[bins == n].mean() for n in used]
        colour = _COLOURS[k % len(_COLOURS)]
        axes.plot(middle, [np.median(np.abs(b.onset[bins == n])) for n in used], "o-", color=colour, markersize=4)
        axes.plot(middle, [np.median(np.abs(b.offset[bins == n])) for n in used], "x--", color=colour, markersize=5)
    plain(axes, "median size of the error by duration (o onset, x offset)", "duration of the event, seconds")
    axes.set_ylim(bottom=0)
