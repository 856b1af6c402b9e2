"""Calibration against independent references: every threshold tried out, and scikit-learn's reliability curve."""

from __future__ import annotations

import math

import numpy as np
import pytest

from timepro.events import Event
from timepro.inference.detections import Detection
from timepro.metrics import corpus_event_f1
from timepro.metrics.calibration import Judged, choose, choose_by_label, judged, reliability

LABELS = ("dog", "cat", "bell")


def corpus(seed: int, clips: int = 30) -> tuple[list[list[Event]], list[list[Detection]]]:
    """References, and detections near some of them, doubled ones and false ones among them; many confidences equal."""
    drawn = np.random.default_rng(seed)

    def sure() -> float:
        return int(drawn.integers(0, 9)) / 8

    references, estimates = [], []
    for _ in range(clips):
        truth = [
            Event(onset, onset + float(drawn.uniform(0.3, 2)), str(drawn.choice(LABELS)))
            for onset in drawn.uniform(0, 8, drawn.integers(0, 6)).tolist()
        ]
        found = [
            Detection(max(0.0, e.onset + float(drawn.normal(0, 0.15))), e.offset + 0.1, e.label, sure())
            for e in truth
            for _ in range(int(drawn.integers(0, 4)))
        ]
        made_up = drawn.uniform(0, 8, drawn.integers(0, 3)).tolist()
        references.append(truth)
        estimates.append([*found, *(Detection(t, t + 1, str(drawn.choice(LABELS)), sure()) for t in made_up)])
    return references, estimates


def scores(references: list[list[Event]], estimates: list[list[Detection]], threshold: float) -> tuple[int, int]:
    kept = [[d.event for d in found if d.confidence >= threshold] for found in estimates]
    return corpus_event_f1(references, kept).tp, sum(map(len, kept))


@pytest.mark.parametrize("seed", range(5))
def test_above_any_threshold_as_many_events_are_right_as_eb_f1_counts(seed: int) -> None:
    references, estimates = corpus(seed)
    found = judged(references, estimates)
    for threshold in np.linspace(0, 1.1, 23):
        kept = found.confidence >= threshold
        assert (int(found.right[kept].sum()), int(kept.sum())) == scores(references, estimates, threshold)
    assert sum(found.references.values()) == sum(map(len, references))


@pytest.mark.parametrize("precision", [0.05, 0.3, 0.5, 0.6, 0.7, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_all_that_there_are(seed: int, precision: float) -> None:
    references, estimates = corpus(seed)
    found = judged(references, estimates)
    tried = {t: scores(references, estimates, t) for t in [0.0, *(k / 8 - 1 / 16 for k in range(1, 9))]}
    shares = {t: right / kept for t, (right, kept) in tried.items() if kept}
    fitting = [t for t, share in shares.items() if share >= precision]
    chosen = choose(found, precision)
    assert chosen.reached == bool(fitting)
    right, kept = tried[chosen.threshold]
    assert (chosen.precision, chosen.kept) == (right / kept, kept)
    assert chosen.recall == right / sum(map(len, references))
    if fitting:
        assert chosen.precision >= precision and right == max(tried[t][0] for t in fitting)
    else:
        assert chosen.precision == max(shares.values())


def test_a_label_has_a_threshold_of_its_own_where_it_has_enough_events() -> None:
    dog = Judged(("dog",) * 40, np.repeat([0.25, 0.75], 20), np.repeat([False, True], 20), {"dog": 25})
    both = Judged(
        (*dog.label, "cat"), np.append(dog.confidence, 0.5), np.append(dog.right, True), {"dog": 25, "cat": 1}
    )
    together, by_label = choose_by_label(both, 0.9)
    assert list(by_label) == ["dog"] and by_label["dog"] == choose(dog, 0.9)
    assert (by_label["dog"].threshold, by_label["dog"].recall, together.threshold) == (0.5, 20 / 25, 0.375)
    assert both.of("dog").right.tolist() == dog.right.tolist() and both.labels == ["cat", "dog"]


def test_no_event_has_no_threshold_but_the_highest() -> None:
    nothing = judged([[Event(0, 1, "dog")], []], [[], []])
    chosen = choose(nothing, 0.9)
    assert (chosen.threshold, chosen.recall, chosen.kept, chosen.reached) == (1.0, 0.0, 0, False)
    assert math.isnan(chosen.precision) and math.isnan(reliability(nothing.confidence, nothing.right).error)
    with pytest.raises(ValueError, match="has no confidence"):
        judged([[]], [[Detection(0, 1, "dog")]])


@pytest.mark.parametrize("seed", range(5))
def test_the_reliability_is_that_of_scikit_learn(seed: int) -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    drawn = np.random.default_rng(seed)
    confidence = np.concatenate([drawn.random(500) ** 2, [0.0, 1.0, 1.0]])
    right = drawn.random(503) < confidence**1.5
    share, mean = calibration.calibration_curve(right, confidence, n_bins=10)
    found = reliability(confidence, right)
    full = found.count > 0
    np.testing.assert_allclose(found.right[full], share, atol=1e-12)
    np.testing.assert_allclose(found.confidence[full], mean, atol=1e-12)
    error = sum(n / 503 * abs(a - b) for n, a, b in zip(found.count[full], share, mean, strict=True))
    assert found.error == pytest.approx(error, abs=1e-12) and 0.02 < error < 0.3
