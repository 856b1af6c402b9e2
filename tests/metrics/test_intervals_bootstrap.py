"""IoU against a fine grid, the bootstrap against a loop and against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from timepro.events import Event
from timepro.metrics import (
    bootstrap_interval,
    label_miou,
    paired_bootstrap,
    recall_at,
    set_iou,
)
from timepro.metrics.bootstrap import macro_f1, percentile_interval, resampled_sums


def test_set_iou_against_a_fine_grid():
    rng = np.random.default_rng(0)
    for _ in range(300):
        sets, grids = [], []
        for _ in range(2):
            starts = rng.integers(0, 100, size=rng.integers(0, 5))
            ends = starts + rng.integers(1, 30, size=len(starts))
            sets.append([(s / 10, e / 10) for s, e in zip(starts.tolist(), ends.tolist(), strict=True)])
            grid = np.zeros(200, dtype=bool)
            for start, end in zip(starts, ends, strict=True):
                grid[start:end] = True
            grids.append(grid)
        together = (grids[0] | grids[1]).sum()
        expected = (grids[0] & grids[1]).sum() / together if together else 1.0
        assert set_iou(*sets) == pytest.approx(expected, abs=1e-12)


def test_set_iou_edges():
    assert set_iou([], []) == 1.0
    assert set_iou([(0, 1)], []) == set_iou([], [(0, 1)]) == 0.0
    assert set_iou([(0, 1)], [(1, 2)]) == 0.0
    for bad in [(2, 1), (math.nan, 1)]:
        with pytest.raises(ValueError, match="ends before it starts or is not a number"):
            set_iou([bad], [])


def test_label_miou_is_the_mean_over_labels_of_either_side():
    reference = [Event(0, 2, "a"), Event(0, 1, "b")]
    estimated = [Event(1, 2, "a"), Event(5, 6, "c")]
    assert label_miou(reference, estimated) == pytest.approx((0.5 + 0 + 0) / 3)
    assert label_miou(reference, estimated, use_label=False) == pytest.approx(1 / 3)
    assert label_miou([], []) == 1.0


def test_recall_at_counts_the_threshold_itself():
    assert recall_at([0.0, 0.3, 0.5, 0.89, 1.0]) == {0.3: 0.8, 0.5: 0.6, 0.7: 0.4, 0.9: 0.2}
    with pytest.raises(ValueError, match="no IoUs"):
        recall_at([])


def random_counts(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n_ref = rng.integers(0, 5, size=n)
    systems = []
    for skill in (0.3, 0.6):
        tp = rng.binomial(n_ref, skill)
        systems.append(np.stack([tp, n_ref, tp + rng.integers(0, 3, size=n)], axis=1))
    return systems[0], systems[1]


def test_paired_bootstrap_against_a_plain_loop():
    a, b = random_counts(60, seed=3)

    def f1(rows):
        return 2 * rows[:, 0].sum() / (rows[:, 1].sum() + rows[:, 2].sum())

    rng = np.random.default_rng(99)
    draws = [rng.integers(0, 60, size=60) for _ in range(4000)]
    expected = np.percentile([f1(b[draw]) - f1(a[draw]) for draw in draws], [2.5, 97.5])
    value, interval = paired_bootstrap(a, b, n_resamples=4000)
    assert value == pytest.approx(f1(b) - f1(a), abs=1e-12)
    assert interval == pytest.approx(expected, abs=0.015)
    assert interval[0] < value < interval[1]
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b)
    assert paired_bootstrap(a, a) == (0.0, (0.0, 0.0))  # paired: the same clips for both


def test_bootstrap_interval_covers_a_known_proportion():
    """With one reference and one estimate a clip, F1 is a plain mean, whose standard error is known."""
    tp = np.arange(1000) % 10 < 4
    counts = np.stack([tp, np.ones(1000), np.ones(1000)], axis=1)
    value, (low, high) = bootstrap_interval(counts, n_resamples=8000)
    error = 1.96 * math.sqrt(0.4 * 0.6 / 1000)
    assert value == pytest.approx(0.4)
    assert (low, high) == pytest.approx((0.4 - error, 0.4 + error), abs=0.004)


def test_macro_f1_is_the_mean_over_classes_that_occur():
    counts = np.array([[1, 2, 2], [0, 0, 3], [0, 0, 0], [2, 2, 2]])
    assert macro_f1(counts) == pytest.approx((0.5 + 0 + 1) / 3)
    assert macro_f1(counts, reference_only=True) == pytest.approx((0.5 + 1) / 2)
    assert macro_f1(counts[2:3]) == 1.0
    assert math.isnan(macro_f1(counts[1:3], reference_only=True))


def test_resampled_sums_are_those_of_whole_clips(monkeypatch):
    rows = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    sums = resampled_sums(rows, 400)
    assert (sums[:, 1] == 10 * sums[:, 0]).all()
    possible = {float(a + b + c) for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4)}
    assert set(sums[:, 0].tolist()) == possible
    np.testing.assert_array_equal(resampled_sums(csr_array(rows), 400), sums)
    monkeypatch.setattr("timepro.metrics.bootstrap._CHUNK", 30)
    assert resampled_sums(rows, 25).shape == (25, 2)


def test_undefined_resamples_leave_the_interval_alone():
    assert percentile_interval(np.array([0.0, 1.0, math.nan]), 1.0) == (0.0, 1.0)
    assert all(math.isnan(end) for end in percentile_interval(np.array([math.nan])))


def test_bootstrap_refuses_unpaired_input():
    a, b = random_counts(20, seed=1)
    with pytest.raises(ValueError, match="20 clips in counts_a, 19 in counts_b"):
        paired_bootstrap(a, b[:-1])
    b[7, 1] += 1
    with pytest.raises(ValueError, match="clip 7"):
        paired_bootstrap(a, b)
    with pytest.raises(ValueError, match=r"expected shape \(N, 3\)"):
        bootstrap_interval(np.zeros((0, 3)))


def test_an_interval_without_length_covers_nothing_and_is_still_an_answer():
    assert set_iou([], [(5.0, 5.0)]) == set_iou([(1.0, 2.0)], [(5.0, 5.0)]) == 0.0
    assert label_miou([Event(1.0, 2.0, "Dog")], [Event(1.0, 2.0, "Dog"), Event(5.0, 5.0, "Cat")]) == 0.5
