"""Moment retrieval's R1 and mAP against a plain implementation, and on cases counted by hand."""

from __future__ import annotations

import math
import random

import pytest

from timepro.events import Event, ParsedAnswer
from timepro.metrics.moments import THRESHOLDS, moment_scores
from timepro.tasks import find_task


def iou(a, b) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def plain(references, answers) -> dict[str, float]:
    """The definitions, query by query and recall by recall."""
    found: dict[str, list[float]] = {"r1_at_0.5": [], "r1_at_0.7": []} | {str(t): [] for t in THRESHOLDS}
    for right, windows in zip(references, answers, strict=True):
        if not right:
            continue
        best = max((iou(windows[0], r) for r in right), default=0.0) if windows else 0.0
        for t in (0.5, 0.7):
            found[f"r1_at_{t}"].append(best >= t)
        for t in THRESHOLDS:
            taken: list[int] = []
            precisions = []  # (precision, hits) behind each window
            for number, window in enumerate(windows[:10], 1):
                for i in sorted(range(len(right)), key=lambda i: -iou(window, right[i])):
                    if i not in taken:
                        if iou(window, right[i]) >= t:
                            taken.append(i)
                        break
                precisions.append((len(taken) / number, len(taken)))
            levels = [max((p for p, hits in precisions if hits >= k), default=0.0) for k in range(1, len(right) + 1)]
            found[str(t)].append(sum(levels) / len(right))
    means = {key: sum(values) / len(values) for key, values in found.items()}
    return {
        "r1_at_0.5": means["r1_at_0.5"], "r1_at_0.7": means["r1_at_0.7"], "map_at_0.5": means["0.5"],
        "map_at_0.75": means["0.75"], "map": sum(means[str(t)] for t in THRESHOLDS) / len(THRESHOLDS),
    }  # fmt: skip


def test_scores_are_those_of_the_definitions_on_random_answers() -> None:
    rng = random.Random(0)

    def windows(n: int) -> list[tuple[float, float]]:
        starts = [rng.uniform(0, 50) for _ in range(n)]
        return [(s, s + rng.uniform(1, 10)) for s in starts]

    for _ in range(100):
        references = [windows(rng.randint(0, 4)) for _ in range(12)] + [windows(1)]
        answers = []
        for right in references:
            near = [(a + rng.gauss(0, 0.7), b + rng.gauss(0, 0.7) + 1) for a, b in right if rng.random() < 0.8]
            near = [(min(pair), max(pair)) for pair in near]
            answers.append(rng.sample(near, len(near)) + windows(rng.randint(0, 12)))
            rng.shuffle(answers[-1])
        assert moment_scores(references, answers) == pytest.approx(plain(references, answers))


def test_cases_counted_by_hand() -> None:
    right = [(10.0, 20.0), (30.0, 40.0)]
    found = moment_scores([right], [[(10.0, 20.0), (0.0, 5.0), (30.0, 40.0)]])
    assert found == pytest.approx(
        {"r1_at_0.5": 1, "r1_at_0.7": 1, "map_at_0.5": 5 / 6, "map_at_0.75": 5 / 6, "map": 5 / 6}
    )
    twice = moment_scores([right], [[(10.0, 20.0), (10.0, 20.0)]])
    assert twice["map"] == pytest.approx(0.5)  # the same moment again is wrong
    assert moment_scores([right], [[]])["map"] == 0.0 == moment_scores([right], [[]])["r1_at_0.5"]
    assert moment_scores([right, []], [right, [(0.0, 1.0)]])["map"] == 1.0  # nobody asks about what is not there
    assert all(math.isnan(value) for value in moment_scores([[]], [[]]).values())
    with pytest.raises(ValueError, match="1 queries .* 0 answers"):
        moment_scores([right], [])


def test_grounding_reports_them() -> None:
    references = [[Event(0.0, 1.0, "")], [Event(2.0, 4.0, "")], []]
    answers = [
        ParsedAnswer([Event(0.0, 0.6, "")], True),
        ParsedAnswer([Event(2.0, 4.0, "")], False),
        ParsedAnswer([], True),
    ]
    metrics = find_task("ag").metrics(references, answers)
    assert (metrics["r1_at_0.5"], metrics["r1_at_0.7"], metrics["map_at_0.5"]) == (0.5, 0.0, 0.5)
    assert metrics["map"] == pytest.approx(0.5 * 3 / 10)
