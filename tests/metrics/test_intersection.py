"""Intersection-based F1 against counting ticks of a grid, and against sed_scores_eval."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from timepro.data.event_files import read_event_file
from timepro.events import Event
from timepro.metrics import class_totals, corpus_scores, intersection_counts

DESED = Path(__file__).parents[2].parent / "shared/data/desed_baseline"
TICK = 0.04


def random_spans(rng: random.Random, most: int) -> list[tuple[int, int]]:
    """Disjoint spans in ticks that may touch neighbours."""
    cuts = sorted(rng.sample(range(60), 2 * rng.randint(0, most)))
    return list(zip(cuts[::2], cuts[1::2], strict=True))


def events(spans: list[tuple[int, int]], label: str = "a") -> list[Event]:
    return [Event(start * TICK, end * TICK, label) for start, end in spans]


def counts_by_ticks(refs: list[tuple[int, int]], ests: list[tuple[int, int]]) -> tuple[int, int, int]:
    grid = np.zeros(60, dtype=int)
    for start, end in refs:
        grid[start:end] = 1
    relevant = [(start, end) for start, end in ests if 2 * grid[start:end].sum() >= end - start]
    covered = np.zeros(60, dtype=int)
    for start, end in relevant:
        covered[start:end] = 1
    tp = sum(2 * covered[start:end].sum() >= end - start for start, end in refs)
    return tp, len(refs), tp + len(ests) - len(relevant)


def test_counts_agree_with_a_grid():
    rng = random.Random(0)
    halves = 0
    for _ in range(3000):
        refs, ests = random_spans(rng, 5), random_spans(rng, 5)
        expected = {"a": counts_by_ticks(refs, ests)} if refs or ests else {}
        assert intersection_counts(events(refs), events(ests)) == expected
        halves += any(2 * max(0, min(b, d) - max(a, c)) == d - c for a, b in refs for c, d in ests)
    assert halves > 100  # exactly half of an event, where rounding would decide


def test_a_relevant_event_in_an_uncovered_one_counts_on_neither_side():
    assert intersection_counts([Event(0, 10, "a")], [Event(0, 1, "a")]) == {"a": (0, 1, 0)}
    assert intersection_counts([Event(0, 10, "a")], [Event(9, 12, "a")]) == {"a": (0, 1, 1)}


def test_pieces_add_up_and_overlaps_are_joined():
    reference = [Event(0, 4, "a")]
    assert intersection_counts(reference, [Event(0, 1, "a"), Event(2, 3, "a")]) == {"a": (1, 1, 1)}
    assert intersection_counts(reference, [Event(0, 1, "a")] * 3) == {"a": (0, 1, 0)}
    assert intersection_counts(reference, [Event(0, 3, "b")]) == {"a": (0, 1, 0), "b": (0, 0, 1)}
    assert intersection_counts(reference, [Event(0, 3, "b")], use_label=False) == {"": (1, 1, 1)}


def sed_scores_eval_fscore(references, estimates, labels):
    """F1 of sed_scores_eval, from scores that are 1 where an event is and 0 elsewhere."""
    sed_scores_eval = pytest.importorskip("sed_scores_eval")
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    scores, truth = {}, {}
    for index, (reference, estimated) in enumerate(zip(references, estimates, strict=True)):
        truth[str(index)] = [(e.onset, e.offset, e.label) for e in reference]
        times = np.unique([0.0, 100.0, *(t for e in estimated for t in (e.onset, e.offset))])
        active = np.zeros((len(times) - 1, len(labels)))
        for e in estimated:
            active[(times[:-1] >= e.onset) & (times[:-1] < e.offset), labels.index(e.label)] = 1
        scores[str(index)] = create_score_dataframe(active, times, labels)
    return sed_scores_eval.intersection_based.fscore(scores, truth, 0.5, dtc_threshold=0.5, gtc_threshold=0.5)


def compare_with_sed_scores_eval(references, estimates):
    labels = sorted({event.label for events in references for event in events})
    f1, precision, recall, _ = sed_scores_eval_fscore(references, estimates, labels)
    pairs = zip(references, estimates, strict=True)
    scores = corpus_scores(class_totals(intersection_counts(r, e) for r, e in pairs))
    for ours, name in ((scores.micro, "micro_average"), (scores.macro, "macro_average")):
        wanted = (f1[name], precision[name], recall[name])
        assert (ours.f1, ours.precision, ours.recall) == pytest.approx(wanted, abs=1e-12)
    for label, row in scores.class_wise.items():
        assert row.f1 == pytest.approx(f1[label], abs=1e-12)


def apart(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without those that touch the one before: sed_scores_eval takes no such reference, and joins such scores."""
    kept: list[tuple[int, int]] = []
    for span in spans:
        if not kept or span[0] > kept[-1][1]:
            kept.append(span)
    return kept


def test_agrees_with_sed_scores_eval():
    rng = random.Random(1)

    def clip(most):
        return [event for label in "abc" for event in events(apart(random_spans(rng, most)), label)]

    for _ in range(25):
        references = [[Event(0.0, 1.0, label) for label in "abc"], *(clip(3) for _ in range(10))]
        # Every class is found somewhere: sed_scores_eval gives a silent one precision 1.
        compare_with_sed_scores_eval(references, [references[0], *(clip(3) for _ in range(10))])


def test_agrees_with_sed_scores_eval_on_desed():
    if not DESED.is_dir():
        pytest.skip(f"real labels not found at {DESED}")
    files = read_event_file(DESED / "validation.tsv", "reference")
    found = read_event_file(DESED / "student_predictions.csv", "predictions")
    compare_with_sed_scores_eval(
        [entry.events for entry in files.values()],
        [found[name].events if name in found else [] for name in files],
    )


def test_an_estimated_event_without_length_is_a_false_positive() -> None:
    dog = Event(1.0, 2.0, "Dog")
    point = Event(5.0, 5.0, "Dog")
    assert intersection_counts([dog], [dog, point]) == {"Dog": (1, 1, 2)}
    assert intersection_counts([dog], [dog, Event(1.5, 1.5, "Dog")]) == {"Dog": (1, 1, 1)}  # part of the other
    assert intersection_counts([dog], [Event(5.0, 5.0, "Cat")]) == {"Dog": (0, 1, 0), "Cat": (0, 0, 1)}
