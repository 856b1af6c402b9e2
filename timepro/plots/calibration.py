"""The picture of a calibration: how often events are right by their confidence, and what a threshold costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timepro.metrics.calibration import Chosen, Judged, reliability
from timepro.plots.analysis import new_figure, plain
from timepro.plots.canvas import GREY, PALETTE, SMALL, plain_style, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREEN = PALETTE[4], PALETTE[5], PALETTE[2]


def draw_calibration(path: Path, found: Judged, title: str, chosen: Chosen | None = None) -> None:
    """Reliability, number of events by confidence, and precision and recall by threshold.

    Args:
        chosen: the threshold of all labels together, shown as a line.

    Raises:
        ValueError: no events, so nothing to draw.
    """
    if not len(found.confidence):
        raise ValueError("no event was found in any clip; there is no confidence to draw")
    with plain_style():
        figure = new_figure(4.4, title=title)
        grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
        _reliability(figure.add_subplot(grid[0, 0]), found)
        _counts(figure.add_subplot(grid[1, 0]), found)
        _thresholds(figure.add_subplot(grid[:, 1]), found, chosen)
        save(figure, path)


def _reliability(axes: Axes, found: Judged) -> None:
    shown = reliability(found.confidence, found.right)
    full = shown.count > 0
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", label="as sure as right")
    spread = np.sqrt(np.clip(shown.right * (1 - shown.right), 0, None)[full] / shown.count[full])
    axes.errorbar(
        shown.confidence[full], shown.right[full], yerr=spread, color=_BLUE, marker="o", markersize=4, linewidth=1.4,
        elinewidth=0.8, capsize=2, label="events, with a standard error",
    )  # fmt: skip
    plain(axes, f"share of events that are right; expected calibration error {shown.error:.3f}", "")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left")


def _counts(axes: Axes, found: Judged) -> None:
    count = reliability(found.confidence, found.right).count
    axes.stairs(count, np.linspace(0, 1, len(count) + 1), fill=True, color=_BLUE, alpha=0.5)
    plain(axes, f"events by confidence ({len(found.confidence):,} in all)", "confidence")
    axes.set_xlim(0, 1.02)


def _thresholds(axes: Axes, found: Judged, chosen: Chosen | None) -> None:
    references = sum(found.references.values())
    order = np.argsort(-found.confidence, kind="stable")
    confidence, right = found.confidence[order], np.cumsum(found.right[order])
    ends = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))
    axes.plot(confidence[ends], right[ends] / (ends + 1), color=_ORANGE, linewidth=1.4, drawstyle="steps-post",
              marker=".", markersize=3, label="precision")  # fmt: skip
    axes.plot(confidence[ends], right[ends] / max(references, 1), color=_GREEN, linewidth=1.4, drawstyle="steps-post",
              marker=".", markersize=3, label="recall")  # fmt: skip
    if chosen is not None:
        label = f"threshold {chosen.threshold:.2f}: {chosen.precision:.0%} precise, {chosen.recall:.0%} found"
        axes.axvline(chosen.threshold, color=GREY, linewidth=1.0, linestyle=":", label=label)
    plain(axes, "what is left from a threshold on, all labels together", "threshold")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left")
