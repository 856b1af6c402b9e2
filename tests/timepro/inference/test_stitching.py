"""Windows and their stitching, against a reference that knows nothing of windows: what sounds, joined by the gap."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from timepro.inference.detections import Detection
from timepro.inference.detector import Detector
from timepro.inference.stitching import SAME_WITHIN, Stitcher, joined_within
from timepro.inference.windows import cut

RATE = 100
Truth = list[Detection]


class ScriptedAnswerer:
    """Tells what truly sounds in a window. A sample's value is its position, from which the window knows its place."""

    sample_rate, window_s, kind = RATE, 10.0, None

    def __init__(
        self, truth: Sequence[Detection], told: Callable[[Detection], Detection] = lambda event: event
    ) -> None:
        self.truth, self.told = truth, told
        self.windows: list[tuple[float, float]] = []

    def answer(self, windows: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [self._one(float(w[0]) / RATE, (float(w[-1]) + 1) / RATE) for w in windows]

    def _one(self, start: float, end: float) -> list[Detection]:
        self.windows.append((start, end))
        inside = [e for e in self.truth if e.onset < end and e.offset > start]
        cut_off = [Detection(max(e.onset, start), min(e.offset, end), e.label, e.confidence) for e in inside]
        return [self.told(event).shifted(-start) for event in cut_off]


def stream_of(n: int, rng: random.Random) -> Iterator[np.ndarray]:
    """Positions 0 to n - 1 in chunks of random lengths, some of them empty."""
    start = 0
    while start < n:
        stop = min(n, start + rng.choice([0, 1, 7, 100, 999, 5000]))
        yield np.arange(start, stop, dtype=np.float64)
        start = stop


def random_truth(rng: random.Random, seconds: float, labels: str = "ab") -> Truth:
    events = []
    for label in labels:
        for _ in range(rng.randrange(7)):
            onset = rng.randrange(int(seconds * RATE)) / RATE
            length = rng.choice([0.05, 1.0, 5.0, 25.0]) * rng.random()
            events.append(Detection(onset, min(seconds, onset + length), label))
    return events


@pytest.mark.parametrize("seed", range(100))
def test_what_windows_cut_is_whole_again(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randrange(1, 6000)
    window, gap = rng.choice([2.0, 4.0, 10.0]), rng.choice([0.0, 0.1, 0.3])
    overlap = window * rng.choice([0.0, 0.1, 0.25, 0.5])
    truth = random_truth(rng, n / RATE)
    even = rng.random() < 0.5
    detector = Detector(answerer=ScriptedAnswerer(truth), window=window, overlap=overlap, gap=gap, batch=3, even=even)
    wanted = sorted(e for label in "ab" for e in joined_within([t for t in truth if t.label == label], gap))
    found = [list(detector.stream(stream_of(n, random.Random(seed + k)), RATE, batch=1 + k)) for k in range(3)]
    assert [sorted(events) for events in found] == [sorted(found[0])] * 3
    assert [(round(e.onset, 6), round(e.offset, 6), e.label) for e in sorted(found[0])] == [
        (round(e.onset, 6), round(e.offset, 6), e.label) for e in wanted
    ]


@pytest.mark.parametrize("seed", range(100))
def test_none_is_doubled_or_lost_where_two_windows_differ_about_the_times(seed: int) -> None:
    """Events well apart, each boundary told 0.11 s too early or too late by every window."""
    rng = random.Random(seed)
    seconds, truth, at = rng.uniform(5, 90), [], 0.0
    while True:
        onset = at + rng.uniform(0.6, 3.0)
        at = onset + rng.choice([0.3, 1.0, 5.0, 25.0]) * rng.uniform(0.8, 1.2)
        if at > seconds - 0.2:
            break
        truth.append(Detection(onset, at, "a"))

    def blurred(event: Detection) -> Detection:
        return Detection(event.onset + rng.uniform(-0.11, 0.11), event.offset + rng.uniform(-0.11, 0.11), "a")

    detector = Detector(answerer=ScriptedAnswerer(truth, blurred))
    found = detector.detect(np.arange(int(seconds * RATE), dtype=np.float64))
    assert len(found) == len(truth)
    for event, true in zip(found, truth, strict=True):
        assert abs(event.onset - true.onset) < 0.2 and abs(event.offset - true.offset) < 0.2


@pytest.mark.parametrize("seed", range(60))
def test_whatever_windows_say_the_events_do_not_depend_on_chunks_and_keep_apart(seed: int) -> None:
    rng = random.Random(seed)
    n, gap = rng.randrange(500, 9000), 0.1

    class Nonsense(ScriptedAnswerer):
        def _one(self, start: float, end: float) -> list[Detection]:
            draw = random.Random(f"{seed} {start}")
            onsets = [draw.uniform(-1, 10) for _ in range(draw.randrange(5))]
            return [Detection(a, a + draw.choice([0.2, 4, 12]) * draw.random(), draw.choice("ab"), 0.5) for a in onsets]

    detector = Detector(answerer=Nonsense([]), gap=gap)
    first, second = ([*detector.stream(stream_of(n, random.Random(k)), RATE)] for k in (seed, seed + 1000))
    assert first == second
    for label in "ab":
        mine = sorted(e for e in first if e.label == label)
        assert all(later.onset > earlier.offset + gap for earlier, later in zip(mine, mine[1:], strict=False))
        assert all(0 <= e.onset <= e.offset <= n / RATE for e in mine)


@pytest.mark.parametrize("seed", range(30))
def test_an_event_is_given_as_soon_as_nothing_can_change_it(seed: int) -> None:
    """That is with the first window whose follower begins behind the event."""
    rng = random.Random(seed)
    truth = [e for e in random_truth(rng, 80.0, "a") if e.offset - e.onset < 1.5]
    session = Detector(answerer=ScriptedAnswerer(truth), overlap=2.0, gap=0.1, even=True).session(RATE)
    given: list[tuple[float, Detection]] = []
    for second in range(80):
        chunk = np.arange(second * RATE, (second + 1) * RATE, dtype=np.float64)
        given += [(second + 1.0, event) for event in session.push(chunk)]
    at_the_end = session.finish()
    assert len(given) + len(at_the_end) == len(joined_within(truth, 0.1))
    window_ends = [10.0 + 8.0 * k for k in range(9)]
    for told_at, event in given:
        assert told_at <= min(end for end in window_ends if event.offset + SAME_WITHIN < end - 2.0)
    assert all(event.offset + SAME_WITHIN >= window_ends[-1] - 2.0 for event in at_the_end)


def test_the_last_window_is_as_long_as_the_others_and_windows_cover_everything() -> None:
    for n in (1, 999, 1000, 1001, 1799, 1800, 1801, 4321):
        windows = list(cut([np.arange(n, dtype=float)], 1000, 200, 1000))
        assert [w.start for w in windows[:-1]] == [800 * k for k in range(len(windows) - 1)]
        assert all(len(w.samples) == min(n, 1000) for w in windows)
        assert windows[-1].end == n
        assert all(w.samples[0] == w.start for w in windows)
        assert all(later.counts_from < earlier.end for earlier, later in zip(windows, windows[1:], strict=False))
    assert not list(cut([], 1000, 200))


@pytest.mark.parametrize("seed", range(20))
def test_windows_end_in_pauses_whatever_the_chunks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loud = [np.repeat(rng.choice([1.0, 0.02]), int(rng.integers(60, 300))) for _ in range(60)]  # sounds and pauses
    loud = [piece if k % 2 else np.full(len(piece), 0.02) for k, piece in enumerate(loud)]
    sound = np.concatenate(loud)
    stream = sound * rng.normal(size=len(sound))
    length, overlap, shortest = 1000, 20, 400
    windows = list(cut([stream], length, overlap, shortest, block=1))
    pieces = np.split(stream, np.sort(rng.integers(0, len(stream), 30)))
    again = list(cut(pieces, length, overlap, shortest, block=1))
    assert [(w.start, w.end, w.counts_from) for w in windows] == [(w.start, w.end, w.counts_from) for w in again]
    assert all(np.array_equal(one.samples, stream[one.start : one.end]) for one in windows)
    assert windows[0].start == 0 and windows[-1].end == len(stream)
    for earlier, later in zip(windows, windows[1:], strict=False):
        assert shortest <= len(earlier.samples) <= length
        assert later.counts_from == earlier.end - overlap
        assert np.all(sound[earlier.end - overlap : earlier.end] < 1.0)  # no sound is cut
    assert shortest <= len(windows[-1].samples) <= length


def test_windows_of_digital_silence_are_as_long_as_they_may_be() -> None:
    # Loudness is the mean of 20 blocks, so that of the last half of them is not known yet.
    assert [len(w.samples) for w in cut([np.zeros(3650)], 1000, 0, block=10)] == [900] * 3 + [950]


def test_an_event_that_the_window_behind_denies_is_the_window_behinds_to_tell() -> None:
    stitcher = Stitcher(hop=8.0, overlap=2.0, gap=0.1)
    late = Detection(9.5, 9.9, "a")  # behind the boundary at 9 s
    early = Detection(8.2, 8.6, "b")  # told by the second window alone, though the first one saw all of it
    cut_off = Detection(8.0, 14.0, "c")  # told by the second window alone, and the first one saw a part of it
    assert stitcher.add(0.0, 10.0, [late]) == []
    assert stitcher.add(8.0, 18.0, [early, cut_off]) == [cut_off]
    assert stitcher.finish() == []


def test_the_surest_window_gives_the_confidence() -> None:
    stitcher = Stitcher(hop=8.0, overlap=2.0, gap=0.1)
    stitcher.add(0.0, 10.0, [Detection(9.0 - 0.5, 10.0, "a", 0.4)])
    assert stitcher.add(8.0, 18.0, [Detection(8.5, 11.0, "a", 0.9)]) == [Detection(8.5, 11.0, "a", 0.9)]


def test_a_sound_without_an_end_does_not_gather_what_happens_meanwhile() -> None:
    stitcher = Stitcher(hop=8.0, overlap=2.0, gap=0.1)
    for k in range(500):
        start = 8.0 * k
        told = [
            Detection(start, start + 10, "a"),
            Detection(start + 3, start + 4, "a"),
            Detection(start + 5, start + 5.5, "a"),
        ]
        assert not stitcher.add(start, start + 10, told)
    held = sum(map(len, stitcher._settled.values())) + len(stitcher._open)
    assert held < 10
    assert stitcher.finish() == [Detection(0.0, 8.0 * 499 + 10, "a")]


def test_windows_come_in_order() -> None:
    stitcher = Stitcher(hop=8.0, overlap=2.0, gap=0.1)
    stitcher.add(8.0, 18.0, [])
    with pytest.raises(ValueError, match="less than 8.000 s after the one from 8.000"):
        stitcher.add(15.0, 25.0, [])
