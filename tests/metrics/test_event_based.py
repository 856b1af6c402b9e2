"""Event-based F1 against sed_eval, against brute force, and on real labels."""

from __future__ import annotations

import itertools
import math
import random
import warnings
from pathlib import Path

import pytest
from sed_eval_results import check_against_sed_eval

from timepro.data.event_files import read_event_file
from timepro.events import Event
from timepro.metrics.error_rate import event_error_rate
from timepro.metrics.event_based import EventReference, corpus_event_f1, event_f1, group_event_f1, match_counts

DESED = Path(__file__).parents[2].parent / "shared/data/desed_baseline"
LABELS = ["a", "b", "c", "d"]


def random_clip(rng: random.Random) -> tuple[list[Event], list[Event]]:
    """Crowded clips on a 40 ms grid: overlaps, duplicates, differences at the collar, empty sides, no length."""
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
    if rng.random() < 0.2:
        onset = rng.choice(reference).onset if reference else 1.0
        estimated.append(Event(onset, onset, rng.choice(LABELS)))
    return reference, estimated


def containers(references, estimates):
    """Reference and estimate of each clip as sed_eval takes them."""
    dcase_util = pytest.importorskip("dcase_util")

    def rows(events):
        return dcase_util.containers.MetaDataContainer(
            [{"filename": "x.wav", "onset": e.onset, "offset": e.offset, "event_label": e.label} for e in events]
        )

    return [(rows(reference), rows(estimated)) for reference, estimated in zip(references, estimates, strict=True)]


def sed_eval_metrics(references, estimates):
    sed_eval = pytest.importorskip("sed_eval")
    metrics = sed_eval.sound_event.EventBasedMetrics(
        event_label_list=sorted({event.label for events in [*references, *estimates] for event in events}),
        t_collar=0.2,
        percentage_of_length=0.2,
        evaluate_onset=True,
        evaluate_offset=True,
        empty_system_output_handling="zero_score",
        event_matching_type="optimal",
    )
    for reference, estimated in containers(references, estimates):
        metrics.evaluate(reference, estimated)
    return metrics


def compare_with_sed_eval(references, estimates):
    scores, rate = corpus_event_f1(references, estimates), event_error_rate(references, estimates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = sed_eval_metrics(references, estimates)
        theirs = metrics.results_overall_metrics()
        macro = metrics.results_class_wise_average_metrics()
    assert scores.class_wise.keys() == metrics.class_wise.keys()
    for label, row in scores.class_wise.items():
        counts = metrics.class_wise[label]
        assert (row.tp, row.n_ref, row.n_est) == (counts["Ntp"], counts["Nref"], counts["Nsys"])
    if scores.n_ref == 0:
        assert math.isnan(theirs["f_measure"]["f_measure"])
        assert math.isnan(rate.error_rate)
        assert scores.micro.f1 == (0.0 if scores.n_est else 1.0)
        return
    check_against_sed_eval(scores, rate, theirs, macro)


@pytest.mark.parametrize("seed", range(10))
def test_twenty_thousand_clips_agree_with_sed_eval(seed):
    rng = random.Random(seed)
    contested = ties = substituted = hallucinated = 0
    for _ in range(2000):
        reference, estimated = random_clip(rng)
        compare_with_sed_eval([reference], [estimated])
        prepared = EventReference(reference)
        contested += any(len(prepared.candidates(event)) > 1 for event in estimated)
        ties += any(abs(abs(r.onset - e.onset) - 0.2) < 1e-9 for r in reference for e in estimated)
        substituted += event_error_rate([reference], [estimated]).substitution > 0
        hallucinated += any(event.label == "d" for event in estimated)
    assert min(contested, ties, substituted, hallucinated) > 50


def test_corpora_agree_with_sed_eval():
    rng = random.Random(11)
    for _ in range(20):
        clips = [random_clip(rng) for _ in range(20)]
        compare_with_sed_eval([clip[0] for clip in clips], [clip[1] for clip in clips])


def test_groups_score_as_clips_do():
    rng = random.Random(12)
    for _ in range(300):
        reference, _ = random_clip(rng)
        answers = [random_clip(rng)[1] for _ in range(6)] + [[], reference, reference[::-1]]
        for settings in ({}, {"tolerance": 1e-6}, {"use_label": False}, {"onset_collar": 0.5, "offset_ratio": 0.0}):
            expected = [corpus_event_f1([reference], [answer], **settings).micro.f1 for answer in answers]
            assert group_event_f1(reference, answers, **settings).tolist() == expected
            assert event_f1(reference, answers[0], **settings) == expected[0]
            assert expected[-2:] == [1.0, 1.0]


def test_pairs_are_one_to_one_and_within_the_collars():
    rng = random.Random(13)
    for _ in range(500):
        reference, estimated = random_clip(rng)
        pairs = EventReference(reference).pairs(estimated)
        assert len(set(pairs.values())) == len(pairs)
        for position, index in pairs.items():
            assert event_f1([reference[position]], [estimated[index]]) == 1.0


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
    assert (scores.macro.f1, scores.macro_sed_eval.f1) == (0.5, 1.0)
    assert (scores.macro.precision, scores.macro.recall) == (0.5, 0.5)
    assert (scores.macro_sed_eval.precision, scores.macro_sed_eval.recall) == (0.5, 1.0)
    assert scores.micro.f1 == pytest.approx(2 / 3)
    assert math.isnan(corpus_event_f1([[]], [[a]]).macro_sed_eval.f1)
    assert corpus_event_f1([[]], [[]]).macro.f1 == 1.0
    with pytest.raises(ValueError, match="1 references and 2 estimates"):
        corpus_event_f1([[]], [[], []])


def test_published_baseline_on_desed():
    if not DESED.is_dir():
        pytest.skip(f"real labels not found at {DESED}")
    files = read_event_file(DESED / "validation.tsv", "reference")
    found = read_event_file(DESED / "student_predictions.csv", "predictions")
    references = [entry.events for entry in files.values()]
    estimates = [found[name].events if name in found else [] for name in files]
    scores, rate = corpus_event_f1(references, estimates), event_error_rate(references, estimates)
    assert round(100 * scores.micro.f1, 3) == 40.950
    assert round(100 * scores.macro_sed_eval.f1, 3) == 39.873
    assert scores.macro == scores.macro_sed_eval  # no hallucinated class among the ten
    # The rates of student_event_f1.txt; its F1 (40.92) has one true positive less than sed_eval finds today.
    assert (round(rate.error_rate, 2), round(rate.macro, 2)) == (1.03, 1.19)
    assert (round(rate.substitution, 2), round(rate.deletion, 2), round(rate.insertion, 2)) == (0.02, 0.61, 0.39)
    compare_with_sed_eval(references, estimates)
