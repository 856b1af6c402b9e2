"""The four measures of captioning, with word overlap in METEOR's place: which captions meet, and with what weight."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from timepro.events import Event, ParsedAnswer
from timepro.metrics.captions import caption_scores, clip_meteor, matched_in_time


class WordOverlap:
    """In METEOR's place: share of common words, and every pair that was asked for."""

    def __init__(self):
        self.asked = []

    def scores(self, pairs):
        self.asked += pairs
        return [len(set(a.split()) & set(b.split())) / max(1, len(set(a.split()) | set(b.split()))) for a, b in pairs]


DOG, CAT = Event(0.0, 2.0, "a dog"), Event(4.0, 6.0, "a cat")


def test_joined_captions_stand_in_the_order_of_their_times():
    meteor = WordOverlap()
    values = clip_meteor([[CAT, DOG]], [[Event(7, 8, "late"), Event(1, 2, "early")]], meteor, "joined")
    assert meteor.asked == [("a dog a cat", "early late")]
    assert values == [0.0]


@pytest.mark.parametrize("measure", ["joined", "matched"])
def test_empty_sides(measure):
    meteor = WordOverlap()
    assert clip_meteor([[], [DOG], []], [[], [], [DOG]], meteor, measure) == [1.0, 0.0, 0.0]
    assert meteor.asked == []


def test_an_unmatched_reference_counts_0_and_a_surplus_estimate_nothing():
    estimated = [Event(0.5, 2.0, "a dog"), Event(8.0, 9.0, "a cat"), Event(0.0, 0.4, "noise")]
    assert clip_meteor([[DOG, CAT]], [estimated], WordOverlap(), "matched") == [0.5]


def test_a_pair_must_overlap():
    assert matched_in_time([DOG], [Event(2.0, 3.0, "a dog")]) == []
    assert matched_in_time([], [DOG]) == matched_in_time([DOG], []) == []
    point = Event(1.0, 1.0, "a click")
    assert matched_in_time([point], [point]) == []


def test_matching_is_the_best_assignment_and_independent_of_the_order():
    rng = random.Random(0)

    def iou(a, b):
        common = max(0.0, min(a.offset, b.offset) - max(a.onset, b.onset))
        return common / (max(a.offset, b.offset) - min(a.onset, b.onset))

    def clip():
        starts = [rng.uniform(0, 5) for _ in range(4)]
        return [Event(start, start + rng.uniform(0.1, 3), str(i)) for i, start in enumerate(starts)]

    for _ in range(50):
        reference, estimated = clip(), clip()
        pairs = matched_in_time(reference, estimated)
        best = max(sum(map(iou, reference, order)) for order in itertools.permutations(estimated))
        assert sum(iou(r, e) for r, e in pairs) == pytest.approx(best)
        assert len({e for _, e in pairs}) == len({r for r, _ in pairs}) == len(pairs)
        assert matched_in_time(reference[::-1], estimated[::-1]) == pairs


def test_all_measures_of_a_corpus():
    references = [[DOG, CAT], [DOG], [CAT]]
    answers = [
        ParsedAnswer([Event(0.0, 2.0, "A  Dog"), Event(4.1, 6.0, "a bird")], True),
        ParsedAnswer([DOG], True),
        ParsedAnswer([CAT], False),
    ]
    meteor = WordOverlap()
    scores = caption_scores(references, answers, meteor)
    assert scores.eb_f1_time == pytest.approx(2 * 3 / 7)
    assert scores.eb_f1_label == pytest.approx(2 * 2 / 7)
    # "a dog a cat" and "A  Dog a bird" have one word of six in common, "a cat" and "a bird" one of three.
    np.testing.assert_allclose(scores.clips, [[1 / 6, (0 + 1 / 3) / 2], [1.0, 1.0], [0.0, 0.0]])
    assert (scores.meteor, scores.meteor_matched) == pytest.approx(tuple(scores.clips.mean(axis=0)))
    assert len(meteor.asked) == 2 + 3  # each clip's joined captions once, each matched pair once, and nothing else


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="measure is 'best'; it must be one of joined, matched"):
        clip_meteor([[]], [[]], WordOverlap(), "best")
    for references in ([], [[DOG]]):
        with pytest.raises(ValueError, match="need one a clip, at least one clip"):
            caption_scores(references, [], WordOverlap())
