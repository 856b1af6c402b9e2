"""Which windows the monitor asks about, and that each of them is believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from timepro.inference.detections import Detection
from timepro.inference.monitor.levels import Levels
from timepro.inference.monitor.listening import Listener
from timepro.inference.monitor.settings import Gate
from timepro.inference.monitor.tracker import LabelRules, Tracker

RATE = 1000
GLASS = (6.0, 7.0)  # in seconds of the stream, within the windows from 0, 3 and 6 s


class Deaf:
    """Hears the glass in some windows alone: a sample's value tells where in the stream it is."""

    sample_rate, window_s, kind = RATE, 8.0, None

    def __init__(self, hears: set[float]) -> None:
        self.hears = hears

    def answer(self, windows: Sequence[np.ndarray]) -> list[list[Detection]]:
        starts = [float(window[0]) for window in windows]
        return [
            [Detection(max(0.0, GLASS[0] - at), GLASS[1] - at, "glass")] if round(at) in self.hears else []
            for at in starts
        ]


@pytest.mark.parametrize("hears", [{0}, {3}, {6}, {0, 3}, {3, 6}, {0, 3, 6}])
def test_a_sound_that_any_window_tells_is_one_alert(hears: set[float]) -> None:
    levels = Levels(RATE, 16.0)
    listener = Listener(Deaf(hears), 8.0, 3.0, Gate(), levels, print)
    tracker, kinds = Tracker("glass", LabelRules(cool_down_s=0.0)), []
    for second in range(30):
        samples = np.full(RATE, float(second), np.float32) + np.arange(RATE, dtype=np.float32) / RATE
        levels.push(float(second), samples)
        for heard in listener.push(float(second), samples):
            kinds += [change.kind for change in tracker.hear(heard)]
        kinds += [change.kind for change in tracker.advance(listener.heard_until)]
    assert kinds == ["begin", "alert", "end"]
    assert not listener.finish()


def test_silence_is_not_asked_about() -> None:
    levels = Levels(RATE, 16.0)
    listener = Listener(Deaf({0, 3, 6}), 8.0, 3.0, Gate(), levels, print)
    for second in range(30):
        samples = np.zeros(RATE, np.float32)
        levels.push(float(second), samples)
        assert not listener.push(float(second), samples)
    assert (listener.asked, listener.silent) == (0, 8)
