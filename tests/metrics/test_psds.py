"""PSDS from sampled answers: the scores by hand, the result against frames of a fine grid and on the known ends."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from timepro.events import Event
from timepro.metrics import psds
from timepro.metrics.psds import SCENARIOS, activity


def test_activity_is_the_share_of_answers():
    samples = [[Event(1, 3, "a"), Event(2, 4, "a")], [Event(2, 3, "a"), Event(0, 1, "b")], [], [Event(2, 3, "other")]]
    boundaries, shares = activity(samples, ["a", "b"], 10.0)
    assert boundaries.tolist() == [0, 1, 2, 3, 4, 10]
    assert shares.T.tolist() == [[0, 0.25, 0.5, 0.25, 0], [0.25, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="at least one sampled answer"):
        activity([], ["a"], 10.0)


def random_test_set(n_clips: int, seed: int):
    rng = np.random.default_rng(seed)
    references, samples = [], []
    for _ in range(n_clips):
        reference = []
        for label in "abc":
            if rng.random() < 0.6:
                onset = int(rng.integers(0, 50))
                reference.append(Event(onset / 10, (onset + int(rng.integers(5, 40))) / 10, label))
        answers = []
        for _ in range(4):
            shifts = rng.integers(-3, 4, size=(len(reference), 2))
            answer = [
                Event(max(0, round(e.onset * 10) + a) / 10, (round(e.offset * 10) + b + 1) / 10, e.label)
                for e, (a, b) in zip(reference, shifts.tolist(), strict=True)
                if rng.random() < 0.8 and max(0, round(e.onset * 10) + a) < round(e.offset * 10) + b + 1
            ]
            if rng.random() < 0.2:
                answer.append(Event(1.0, 2.0, str(rng.choice(["a", "b", "c", "hallucinated"]))))
            answers.append(answer)
        references.append(reference)
        samples.append(answers)
    return references, samples


def test_agrees_with_scores_on_a_grid():
    """The library's own way: frames of 0.1 s, every operating point. Silence everywhere is beyond 100 an hour here."""
    sed_scores_eval = pytest.importorskip("sed_scores_eval")
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    references, samples = random_test_set(60, seed=0)
    grid = np.arange(101) / 10
    scores, truth, lengths = {}, {}, {}
    for index, (reference, answers) in enumerate(zip(references, samples, strict=True)):
        active = np.zeros((100, 3))
        for answer in answers:
            once = np.zeros((100, 3), dtype=bool)
            for e in answer:
                if e.label in "abc":
                    once[round(e.onset * 10) : round(e.offset * 10), "abc".index(e.label)] = True
            active += once / 4
        scores[str(index)] = create_score_dataframe(active, grid, list("abc"))
        truth[str(index)] = [(e.onset, e.offset, e.label) for e in reference]
        lengths[str(index)] = 10.0
    ours = psds(references, samples, [10.0] * 60)
    for name, settings in SCENARIOS.items():
        value, *_ = sed_scores_eval.intersection_based.psds(scores, truth, lengths, **settings)
        assert ours[name] == pytest.approx(value, abs=1e-9)
        assert 0.05 < value < 0.99


def test_ends_of_the_scale():
    pytest.importorskip("sed_scores_eval")
    references, _ = random_test_set(20, seed=1)
    assert psds(references, [[r] * 3 for r in references], [10.0] * 20) == {"psds1": 1.0, "psds2": 1.0}
    # Long clips: declaring every class active everywhere would stay below 100 false positives an hour.
    assert psds(references, [[[], []] for _ in references], [600.0] * 20) == {"psds1": 0.0, "psds2": 0.0}
    one_class = [[Event(1, 2, "a")], []]
    assert psds(one_class, [[r] for r in one_class], [10.0] * 2) == {"psds1": 1.0, "psds2": 1.0}


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    with pytest.raises(ValueError, match="-m pip install sed_scores_eval"):
        psds([[Event(0, 1, "a")]], [[[]]], [1.0])


def test_a_pandas_that_it_cannot_work_with_is_named(monkeypatch):
    pytest.importorskip("sed_scores_eval")
    monkeypatch.setattr("pandas.__version__", "3.0.1")
    with pytest.raises(ValueError, match="does not work with pandas 3.0.1; install it with: .* -m pip install"):
        psds([[Event(0, 1, "a")]], [[[]]], [1.0])


def test_bad_input():
    pytest.importorskip("sed_scores_eval")
    with pytest.raises(ValueError, match="1 references, 2 lists of answers, 1 durations"):
        psds([[]], [[[]], [[]]], [1.0])
    with pytest.raises(ValueError, match="without any reference event"):
        psds([[]], [[[]]], [1.0])
