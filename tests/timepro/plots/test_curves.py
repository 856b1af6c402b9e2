"""Training curves: a panel a metric, and a running mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.image import imread

from timepro.plots import curves
from timepro.plots.curves import draw_curves


def test_curves_are_written_with_a_panel_a_metric(tmp_path):
    series = {"loss": [(i, 1 / (i + 1)) for i in range(50)], "empty": [], "gaps": [(0, 1.0), (1, math.nan), (2, 2.0)]}
    draw_curves(tmp_path / "c.png", series, "a run")
    assert [p.name for p in tmp_path.iterdir()] == ["c.png"]
    assert imread(tmp_path / "c.png").shape[1] == 1400
    panels = curves._curves_figure(series, "a run").axes
    assert [p.get_title(loc="left") for p in panels] == ["loss", "empty", "gaps  (1 not finite)"]
    thin, bold = panels[0].lines
    assert thin.get_xydata().tolist() == [list(map(float, point)) for point in series["loss"]]
    assert thin.get_linewidth() < bold.get_linewidth()
    with pytest.raises(ValueError, match="no series"):
        draw_curves(tmp_path / "d.png", {}, "a run")


def test_running_mean_against_a_plain_loop():
    rng = np.random.default_rng(0)
    values = rng.normal(size=100)
    values[[0, 30, 31, 99]] = np.nan
    smooth = curves._running_mean(values)
    for i in range(100):
        half = max(1, min(5, i, 99 - i))
        window = [v for v in values[max(0, i - half) : i + half + 1] if not math.isnan(v)]
        expected = math.nan if math.isnan(values[i]) else sum(window) / len(window)
        assert smooth[i] == pytest.approx(expected, nan_ok=True)
