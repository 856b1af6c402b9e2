"""Segment-based F1 and error rate against sed_eval, and on real labels."""

from __future__ import annotations

import math
import random
import re
import warnings
from pathlib import Path

import pytest
from sed_eval_results import check_against_sed_eval

from timepro.data.event_files import read_event_file
from timepro.events import Event
from timepro.metrics import segment_counts, segment_scores

DESED = Path(__file__).parents[2].parent / "shared/data/desed_baseline"


def random_events(rng: random.Random, labels: str) -> list[Event]:
    """Times on a 0.1 s grid, where boundaries meet those of segments, and off it; overlaps and short events."""
    events = []
    for _ in range(rng.choice([0, 1, 2, 4, 6])):
        decimals = rng.choice([1, 1, 3])
        onset = round(rng.uniform(0, 5), decimals)
        offset = round(onset + rng.choice([0.01, 0.1, 0.3, 1.0, 2.5]), 3)
        events.append(Event(onset, offset, rng.choice(labels)))
    return events


def sed_eval_metrics(references, estimates, resolution):
    sed_eval = pytest.importorskip("sed_eval")
    import dcase_util

    def rows(events):
        return dcase_util.containers.MetaDataContainer(
            [{"filename": "x.wav", "onset": e.onset, "offset": e.offset, "event_label": e.label} for e in events]
        )

    labels = sorted({event.label for events in [*references, *estimates] for event in events})
    metrics = sed_eval.sound_event.SegmentBasedMetrics(event_label_list=labels, time_resolution=resolution)
    metrics.empty_system_output_handling = "zero_score"  # its constructor cannot be told
    for reference, estimated in zip(references, estimates, strict=True):
        if reference or estimated:  # sed_eval cannot tell how long a clip without events is
            metrics.evaluate(rows(reference), rows(estimated))
    return metrics


def compare_with_sed_eval(references, estimates, resolution):
    clips = zip(references, estimates, strict=True)
    scores, rate = segment_scores([segment_counts(r, e, resolution) for r, e in clips])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = sed_eval_metrics(references, estimates, resolution)
        theirs = metrics.results_overall_metrics()
        macro = metrics.results_class_wise_average_metrics()
    assert scores.n_ref > 0
    check_against_sed_eval(scores, rate, theirs, macro)
    return scores, rate


@pytest.mark.parametrize(("resolution", "rounds"), [(1.0, 60), (0.1, 15)])
def test_agrees_with_sed_eval(resolution, rounds):
    rng = random.Random(3)
    substituted = 0
    for _ in range(rounds):
        references = [[Event(0.0, 1.0, "a")], *(random_events(rng, "abc") for _ in range(10))]
        estimates = [[], *(random_events(rng, "abcd") for _ in range(10))]
        _, rate = compare_with_sed_eval(references, estimates, resolution)
        substituted += rate.substitution > 0
    assert substituted > rounds / 2


def test_a_touched_segment_is_active():
    clip = segment_counts([Event(0.9, 1.1, "a")], [Event(1.5, 1.6, "a")])
    assert clip.by_label == {"a": (1, 2, 1)}
    assert segment_counts([Event(1.0, 2.0, "a")], []).by_label == {"a": (0, 1, 0)}


def test_one_missed_and_one_false_class_are_one_substitution_a_segment():
    clip = segment_counts([Event(0, 3, "a")], [Event(1, 5, "b")])
    assert clip.substituted == 2
    _, rate = segment_scores([clip])
    assert (rate.substitution, rate.deletion, rate.insertion) == pytest.approx((2 / 3, 1 / 3, 2 / 3))
    assert segment_counts([Event(0, 3, "a")], [Event(1, 5, "b")], use_label=False).by_label == {"": (2, 3, 4)}


def test_time_far_away_costs_nothing():
    assert segment_counts([Event(0, 1e12, "a")], [Event(1e12, 2e12, "a")], 0.1).by_label["a"][0] == 0


def test_without_a_reference_the_error_rate_is_not_defined():
    scores, rate = segment_scores([segment_counts([], [Event(0, 1, "a")])])
    assert math.isnan(rate.error_rate) and scores.micro.f1 == 0.0


def test_published_report_on_desed():
    if not DESED.is_dir():
        pytest.skip(f"real labels not found at {DESED}")
    files = read_event_file(DESED / "validation.tsv", "reference")
    found = read_event_file(DESED / "student_predictions.csv", "predictions")
    clips = [segment_counts(entry.events, found[name].events if name in found else []) for name, entry in files.items()]
    scores, rate = segment_scores(clips)
    report = (DESED / "student_segment_f1.txt").read_text()
    wanted = [float(value) for value in re.findall(r"(?:F1\)|Precision|Recall) *: ([\d.]+) %", report)]
    ours = [getattr(average, key) for average in (scores.micro, scores.macro) for key in ("f1", "precision", "recall")]
    assert wanted == [round(100 * value, 2) for value in ours]
    rates = [float(value) for value in re.findall(r"(?:ER\)|rate) *: ([\d.]+)", report)]
    assert rates[:4] == [round(v, 2) for v in (rate.error_rate, rate.substitution, rate.deletion, rate.insertion)]
    assert rates[4] == round(rate.macro, 2)
    rows = re.findall(r"^ +(\w+)\.* +\| (\d+) +(\d+) +\| +([\d.]+)% ", report, re.MULTILINE)
    assert len(rows) == 10
    for name, n_ref, n_est, f1 in rows:
        row = next(row for label, row in scores.class_wise.items() if label.startswith(name))
        assert (row.n_ref, row.n_est, round(100 * row.f1, 1)) == (int(n_ref), int(n_est), float(f1))
