"""Event-based F1 against sed_eval, against brute force, and on real labels."""

from __future__ import annotations

import csv
import itertools
import math
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from timepro.events import Event
from timepro.metrics.event_based import corpus_event_f1, event_f1, match_counts

DESED = Path(__file__).parents[2].parent / "shared/data/desed_baseline"
LABELS = ["a", "b", "c", "d"]


def random_clip(rng: random.Random) -> tuple[list[Event], list[Event]]:
    """Crowded clips on a 40 ms grid: overlaps, duplicates, differences exactly at the collar, empty sides."""
    reference, estimated = [], []
    for _ in range(rng.choice([0, 1, 2, 3, 5, 8])):
        onset = rng.randrange(50) * 4 / 100
        reference.append(Event(onset, onset + rng.randint(1, 80) * 4 / 100, rng.choice(LABELS[:3])))
    for _ in range(rng.choice([0, 1, 2, 4, 8])):
        if reference and rng.random() < 0.7:
            near = rng.choice(reference)
            onset = near.onset + rng.choice([0, 0.04, -0.12, 0.2, -0.2, 0.24])
            offset = near.offset + rng.choice([0, 0.08, 0.2, -0.2, -0.24, 0.2 * (near.offset - near.onset)])
            estimated.append(Event(onset, max(offset, onset + 0.04), near.label))
        else:
            onset = rng.randrange(50) * 4 / 100
            estimated.append(Event(onset, onset + rng.randint(1, 80) * 4 / 100, rng.choice(LABELS)))
    if estimated and rng.random() < 0.2:
        estimated.append(estimated[0])
    return reference, estimated


def sed_eval_metrics(references, estimates):
    sed_eval = pytest.importorskip("sed_eval")
    import dcase_util

    def rows(events, name):
        return dcase_util.containers.MetaDataContainer(
            [{"filename": name, "onset": e.onset, "offset": e.offset, "event_label": e.label} for e in events]
        )

    labels = sorted({event.label for events in [*references, *estimates] for event in events})
    metrics = sed_eval.sound_event.EventBasedMetrics(
        event_label_list=labels,
        t_collar=0.2,
        percentage_of_length=0.2,
        evaluate_onset=True,
        evaluate_offset=True,
        empty_system_output_handling="zero_score",
        event_matching_type="optimal",
    )
    for index, (reference, estimated) in enumerate(zip(references, estimates, strict=True)):
        metrics.evaluate(rows(reference, f"{index}.wav"), rows(estimated, f"{index}.wav"))
    return metrics


def compare_with_sed_eval(references, estimates):
    scores = corpus_event_f1(references, estimates)
    if scores.n_ref == 0:  # sed_eval gives NaN
        assert scores.f1 == (0.0 if scores.n_est else 1.0)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = sed_eval_metrics(references, estimates)
        overall = metrics.results_overall_metrics()["f_measure"]
        macro = metrics.results_class_wise_average_metrics()["f_measure"]["f_measure"]
    assert scores.f1 == pytest.approx(overall["f_measure"], abs=1e-12)
    assert scores.precision == pytest.approx(overall["precision"], abs=1e-12)
    assert scores.recall == pytest.approx(overall["recall"], abs=1e-12)
    assert scores.macro_sed_eval == pytest.approx(macro, abs=1e-12)
    for label, row in scores.class_wise.items():
        theirs = metrics.class_wise[label]
        assert (row.tp, row.n_ref, row.n_est) == (theirs["Ntp"], theirs["Nref"], theirs["Nsys"])


def test_single_clips_agree_with_sed_eval():
    rng = random.Random(0)
    for _ in range(2600):  # about 2,100 with a reference, without one sed_eval gives NaN
        reference, estimated = random_clip(rng)
        compare_with_sed_eval([reference], [estimated])


def test_corpora_agree_with_sed_eval():
    rng = random.Random(1)
    for _ in range(20):
        clips = [random_clip(rng) for _ in range(20)]
        compare_with_sed_eval([clip[0] for clip in clips], [clip[1] for clip in clips])


def test_matching_is_maximum_by_brute_force():
    rng = random.Random(2)

    def matches(ref, est):
        limit = max(0.2, 0.2 * (ref.offset - ref.onset))
        return abs(ref.onset - est.onset) <= 0.2 and abs(ref.offset - est.offset) <= limit

    positive = 0
    for _ in range(400):
        reference, estimated = (
            [Event(t := rng.randrange(12) / 10, t + rng.randint(1, 8) / 10, "") for _ in range(rng.randint(0, 5))]
            for _ in range(2)
        )
        few, many, swapped = (
            (reference, estimated, False) if len(reference) <= len(estimated) else (estimated, reference, True)
        )
        best = max(
            sum(matches(b, a) if swapped else matches(a, b) for a, b in zip(few, order, strict=True))
            for order in itertools.permutations(many, len(few))
        )
        tp = sum(row[0] for row in match_counts(reference, estimated).values())
        assert tp == best
        positive += best > 1
    assert positive > 50


def test_augmenting_paths_survive_thousands_of_events():
    """Each event matches its neighbours too: a long alternating path, deeper than Python's recursion limit."""
    n = 1500
    reference = [Event(0.15 * i, 0.15 * i + 0.1, "x") for i in range(n)]
    estimated = [Event(0.15 * i - 0.15, 0.15 * i - 0.05, "x") for i in range(n, 0, -1)]
    assert match_counts(reference, estimated)["x"] == (n, n, n)


def test_tolerance_admits_boundaries_exactly_at_the_collar():
    reference, estimated = [Event(0.36, 2.0, "a")], [Event(0.56, 2.0, "a")]
    assert abs(0.36 - 0.56) > 0.2  # by rounding
    assert event_f1(reference, estimated) == 0.0
    assert event_f1(reference, estimated, tolerance=1e-6) == 1.0


def test_empty_sides_labels_and_hallucinated_classes():
    a, b = Event(0, 1, "a"), Event(0, 1, "b")
    assert event_f1([], []) == 1.0
    assert event_f1([a], []) == event_f1([], [a]) == event_f1([a], [b]) == 0.0
    assert event_f1([a], [b], use_label=False) == 1.0
    scores = corpus_event_f1([[a]], [[a, b]])
    assert (scores.macro, scores.macro_sed_eval) == (0.5, 1.0)
    assert scores.f1 == pytest.approx(2 / 3)
    assert math.isnan(corpus_event_f1([[]], [[a]]).macro_sed_eval)
    with pytest.raises(ValueError, match="1 references and 2 estimates"):
        corpus_event_f1([[]], [[], []])


def test_published_baseline_on_desed():
    if not DESED.is_dir():
        pytest.skip(f"real labels not found at {DESED}")
    with open(DESED / "validation.tsv") as file:
        reference_rows = list(csv.DictReader(file, delimiter="\t"))
    with open(DESED / "student_predictions.csv") as file:
        estimate_rows = list(csv.DictReader(file))
    clips = sorted({row["filename"] for row in reference_rows})

    def events(rows):
        by_clip = {clip: [] for clip in clips}
        for row in rows:
            if row["event_label"] and row["filename"] in by_clip:  # predictions for unlabelled files do not count
                by_clip[row["filename"]].append(Event(float(row["onset"]), float(row["offset"]), row["event_label"]))
        return [by_clip[clip] for clip in clips]

    scores = corpus_event_f1(events(reference_rows), events(estimate_rows))
    assert round(100 * scores.f1, 3) == 40.950
    assert round(100 * scores.macro_sed_eval, 3) == 39.873
    assert scores.macro == pytest.approx(scores.macro_sed_eval)  # no hallucinated class among the ten
    assert np.isclose(scores.f1, 2 * scores.precision * scores.recall / (scores.precision + scores.recall))
