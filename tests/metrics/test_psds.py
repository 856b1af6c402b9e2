"""PSDS from sampled answers: the scores by hand, the result against frames of a fine grid and on the known ends."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from timepro.events import Event
from timepro.inference.confidence import by_share
from timepro.inference.detections import Detection
from timepro.metrics import psds
from timepro.metrics.psds import SCENARIOS, activity, box_scores, psds_heading, psds_of_events


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


# ---------------------------------------------------------------- events with a confidence each


def random_boxes(n_clips: int, seed: int):
    """References and events about them with confidences, those of a class apart from each other."""
    rng = np.random.default_rng(seed)
    references, _ = random_test_set(n_clips, seed)
    found = []
    for reference in references:
        boxes = []
        for event in reference:
            if rng.random() < 0.85:
                onset = max(0.0, event.onset + float(rng.normal(0, 0.3)))
                offset = max(onset + 0.1, event.offset + float(rng.normal(0, 0.3)))
                boxes.append(Detection(onset, offset, event.label, float(rng.integers(1, 9)) / 8))
        if rng.random() < 0.4:
            boxes.append(Detection(9.4, 9.9, str(rng.choice(["a", "b", "other"])), float(rng.integers(1, 9)) / 8))
        found.append(boxes)
    return references, found


def test_a_box_has_its_score_over_its_whole_length_and_the_surer_one_counts() -> None:
    boxes = [Detection(1, 4, "a", 0.5), Detection(3, 5, "a", 0.75), Detection(2, 3, "b", 1.0), Detection(0, 9, "z", 1)]
    boundaries, scores = box_scores(boxes, ["a", "b"], 10.0)
    assert boundaries.tolist() == [0, 1, 2, 3, 4, 5, 9, 10]
    assert scores.T.tolist() == [[0, 0.5, 0.5, 0.75, 0.75, 0, 0], [0, 0, 1, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="has the confidence None"):
        box_scores([Detection(1, 2, "a")], ["a"], 10.0)


def test_boxes_score_as_those_of_sebbs() -> None:
    """`sebbs` writes a box's score over its extent and minus infinity elsewhere, for the same library."""
    pytest.importorskip("sed_scores_eval")
    sebbs = pytest.importorskip("sebbs.utils")
    from sed_scores_eval import intersection_based

    references, found = random_boxes(60, seed=3)
    boxes = {str(i): [(b.onset, b.offset, b.label, b.confidence) for b in own if b.label in "abc"]
             for i, own in enumerate(found)}  # fmt: skip
    truth = {str(i): [(e.onset, e.offset, e.label) for e in reference] for i, reference in enumerate(references)}
    lengths = {str(i): 10.0 for i in range(60)}
    scores = sebbs.sed_scores_from_sebbs(boxes, ["a", "b", "c"], lengths)
    ours = psds_of_events(references, found, [10.0] * 60)
    for name, settings in SCENARIOS.items():
        value, *_ = intersection_based.psds(scores, truth, lengths, **settings)
        assert ours[name] == pytest.approx(value, abs=1e-9)


def psds1_by_hand(references, found, duration: float) -> float:
    """PSDS 1 from its definition: at every threshold the events above it, counted one by one, class by class."""
    hours = len(references) * duration / 3600
    reference_hours = {}
    curves = []
    for label in "abc":
        points = [(0.0, 0.0)]  # (false positives an hour, true positive ratio)
        n_reference = sum(e.label == label for reference in references for e in reference)
        reference_hours[label] = n_reference
        for threshold in sorted({b.confidence for own in found for b in own}):
            true = false = 0
            for reference, own in zip(references, found, strict=True):
                right = [(e.onset, e.offset) for e in reference if e.label == label]
                said = [(b.onset, b.offset) for b in own if b.label == label and b.confidence >= threshold]

                def shared(one, others):
                    return sum(max(0.0, min(one[1], b) - max(one[0], a)) for a, b in others)

                relevant = [s for s in said if shared(s, right) >= 0.7 * (s[1] - s[0])]  # detection tolerance
                false += len(said) - len(relevant)
                true += sum(shared(r, relevant) >= 0.7 * (r[1] - r[0]) for r in right)  # ground truth tolerance
            points.append((false / hours, true / n_reference))
        curves.append(points)
    edges = sorted({x for points in curves for x, _ in points if x <= 100} | {100.0})
    area = 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        ratios = [max(y for x, y in points if x <= low) for points in curves]
        area += (high - low) * max(0.0, np.mean(ratios) - np.std(ratios))
    return area / 100


def test_psds_1_of_boxes_is_that_counted_from_its_definition() -> None:
    pytest.importorskip("sed_scores_eval")
    values = []
    for seed in range(6):
        references, found = random_boxes(40, seed)
        values.append(psds_of_events(references, found, [10.0] * 40)["psds1"])
        assert values[-1] == pytest.approx(psds1_by_hand(references, found, 10.0), abs=1e-9)
    assert min(values) > 0.1 and max(values) < 0.9


def test_sampled_answers_as_boxes_keep_their_times_at_every_threshold() -> None:
    """Half of the answers tell of a long event, half of a short one inside: shares cut the long one, boxes do not."""
    pytest.importorskip("sed_scores_eval")
    long, short = [Event(1.0, 9.0, "a")], [Event(4.0, 5.0, "a")]
    samples = [[long, long, short, short]]
    assert [(b.onset, b.offset, b.confidence) for b in by_share(samples[0])] == [(1.0, 9.0, 0.5), (4.0, 5.0, 0.5)]
    assert psds([short], samples, [10.0])["psds1"] == 1.0  # at 0.6 only the short part is left
    assert psds_of_events([short], [by_share(samples[0])], [10.0])["psds1"] == 0.0  # both are told with equal share
    assert (psds_heading("psds1"), psds_heading("psds2_events")) == ("PSDS 1", "PSDS 2 (events)")
