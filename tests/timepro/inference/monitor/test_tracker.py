"""Events of one label: they begin, alert once, go on, and always end."""

from __future__ import annotations

import random
from zoneinfo import ZoneInfo

import pytest

from timepro.inference.monitor.tracker import Change, Heard, LabelRules, Tracker


def heard(onset: float, offset: float, confidence: float = 0.9) -> Heard:
    return Heard(onset, offset, "glass", confidence)


def kinds(changes: list[Change]) -> list[str]:
    return [change.kind for change in changes]


def test_an_event_begins_alerts_at_its_first_sound_goes_on_and_ends() -> None:
    tracker = Tracker("glass", LabelRules(max_not_heard_s=5))
    assert kinds(tracker.hear(heard(10, 11))) == ["begin", "alert"]
    assert tracker.hear(heard(13, 14)) == []
    assert tracker.advance(19) == []
    (end,) = tracker.advance(19.1)
    assert (end.kind, end.event.onset, end.event.offset, end.reason) == ("end", 10, 14, "not heard")
    assert tracker.advance(1000) == []


def test_what_overlapping_windows_tell_twice_is_one_event() -> None:
    tracker = Tracker("glass", LabelRules(max_not_heard_s=0, cool_down_s=0))
    changes = tracker.hear(heard(10, 11)) + tracker.hear(heard(10.1, 12)) + tracker.advance(13)
    changes += tracker.hear(heard(10.5, 11.8)) + tracker.hear(heard(11.5, 12)) + tracker.advance(20)
    assert kinds(changes) == ["begin", "alert", "end"]


def test_an_event_that_has_ended_is_not_told_again_by_a_window_that_hears_its_end_later() -> None:
    """As when a file is listened to again after a restart, with times that differ in the last digits."""
    tracker = Tracker("glass", LabelRules(max_not_heard_s=0, cool_down_s=0))
    tracker.hear(heard(10, 11))
    assert kinds(tracker.advance(12)) == ["end"]
    assert tracker.hear(heard(10, 11.0000001)) + tracker.hear(heard(10.02, 11.08)) == []
    assert kinds(tracker.hear(heard(10.9, 14))) == ["begin", "alert"]


def test_a_sound_below_the_threshold_does_not_begin_an_event_nor_keep_one_up() -> None:
    tracker = Tracker("glass", LabelRules(threshold=0.5, max_not_heard_s=2))
    assert tracker.hear(heard(1, 2, 0.49)) == []
    assert kinds(tracker.hear(heard(3, 4, 0.5))) == ["begin", "alert"]
    tracker.hear(heard(5, 6, 0.1))
    assert [c.event.offset for c in tracker.advance(6.5)] == [4]


def test_a_short_sound_is_no_event_and_several_short_ones_are() -> None:
    tracker = Tracker("glass", LabelRules(min_duration_s=1.0, max_not_heard_s=2))
    assert tracker.hear(heard(0, 0.4)) + tracker.advance(5) == []
    changes = tracker.hear(heard(10, 10.4)) + tracker.hear(heard(11, 11.4)) + tracker.hear(heard(12, 12.4))
    assert kinds(changes) == ["begin", "alert"]
    assert changes[0].event.onset == 10


def test_the_next_event_is_quiet_while_it_cools_down_and_told_once_it_outlasts_that() -> None:
    tracker = Tracker("glass", LabelRules(max_not_heard_s=1, cool_down_s=30))
    tracker.hear(heard(0, 1))
    assert kinds(tracker.advance(3)) == ["end"]
    assert kinds(tracker.hear(heard(10, 11))) == ["begin"]
    assert kinds(tracker.advance(20)) == ["end"]  # a quiet one begins no cool-down of its own
    assert kinds(tracker.hear(heard(29, 30.5))) == ["begin"]
    assert kinds(tracker.hear(heard(30.5, 31.5))) == ["alert"]


def test_a_sound_that_goes_on_into_the_schedule_is_told_when_it_begins() -> None:
    tracker = Tracker("siren", LabelRules(in_schedule=lambda position: position >= 100))
    assert kinds(tracker.hear(heard(90, 95))) == ["begin"]
    assert kinds(tracker.hear(heard(95, 101))) == ["alert"]


def test_closing_ends_what_is_open_with_the_reason() -> None:
    tracker = Tracker("glass", LabelRules())
    tracker.hear(heard(0, 1))
    assert [(c.kind, c.reason) for c in tracker.close("stopped")] == [("end", "stopped")]
    assert tracker.close("stopped") == []


def random_run(seed: int) -> tuple[LabelRules, list[Change]]:
    """Sounds as overlapping windows tell them, with silence, and an end at any moment."""
    rng = random.Random(seed)
    rules = LabelRules(
        threshold=rng.choice([0.0, 0.5]),
        min_duration_s=rng.choice([0.0, 0.3, 2.0]),
        max_not_heard_s=rng.choice([0.0, 1.0, 5.0]),
        cool_down_s=rng.choice([0.0, 10.0, 40.0]),
        in_schedule=(lambda position: True) if rng.random() < 0.5 else (lambda position: position % 60 < 30),
    )
    tracker, changes, position = Tracker("glass", rules), [], 0.0
    for _ in range(rng.randrange(1, 120)):
        for _ in range(rng.randrange(0, 3)):
            onset = max(0.0, position + rng.uniform(-4, 4))
            changes += tracker.hear(heard(onset, onset + rng.choice([0.0, 0.05, 1.0, 6.0]), rng.random()))
        position += rng.choice([0.0, 0.5, 4.0, 30.0])
        changes += tracker.advance(position)
    return rules, changes + tracker.close("stopped")


@pytest.mark.parametrize("seed", range(300))
def test_random_sounds_keep_the_promises(seed: int) -> None:
    rules, changes = random_run(seed)
    events: dict[int, list[Change]] = {}
    for change in changes:
        events.setdefault(id(change.event), []).append(change)
    alerted_until, last_end = -1e9, -1e9
    for told in events.values():
        assert kinds(told) in (["begin", "end"], ["begin", "alert", "end"])  # always an end, at most one alert
        event = told[0].event
        assert event.offset > event.onset >= last_end - 1e-9  # events of a label do not overlap
        assert event.heard_s + 1e-6 >= rules.min_duration_s
        assert event.heard_s <= event.offset - event.onset + 1e-6
        assert event.confidence >= rules.threshold
        if "alert" in kinds(told):
            assert event.offset >= alerted_until + rules.cool_down_s - 1e-9
            alerted_until = event.offset
        last_end = event.offset


def test_random_runs_reach_every_outcome() -> None:
    """Else the test above would hold for nothing."""
    outcomes = {(c.kind, c.reason, c.event.alerted) for seed in range(300) for c in random_run(seed)[1]}
    assert {("end", "not heard", True), ("end", "not heard", False), ("end", "stopped", True)} <= outcomes


def test_schedules_read_days_and_hours_in_their_time_zone() -> None:
    from datetime import datetime

    from timepro.inference.monitor.schedule import parse_schedule

    zone = ZoneInfo("Europe/Berlin")

    def holds(lines: list[str], *moment: int) -> bool:
        return parse_schedule(lines, zone, "k").holds(datetime(*moment, tzinfo=zone).timestamp())  # type: ignore[misc]

    night = ["mon-fri 18:00-07:00", "sat,sun"]
    assert holds(night, 2026, 11, 23, 18, 0) and not holds(night, 2026, 11, 23, 17, 59)  # a Monday
    assert holds(night, 2026, 11, 24, 6, 59) and not holds(night, 2026, 11, 24, 7, 0)
    assert not holds(night, 2026, 11, 23, 3, 0)  # Sunday's night is not in "mon-fri 18:00-07:00" ...
    assert holds(night, 2026, 11, 22, 23, 59) and holds(
        night, 2026, 11, 28, 5, 0
    )  # ... but Friday's and the weekend are
    assert holds(["fri-mon"], 2026, 11, 22, 12, 0) and not holds(["fri-mon"], 2026, 11, 24, 12, 0)
    assert holds([], 2026, 11, 24, 12, 0)
    # The night in which the clock goes back by an hour has an hour more, and 02:30 twice.
    assert all(parse_schedule(["02:00-03:00"], zone, "k").holds(t) for t in (1792888200, 1792888200 + 3600))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("mon-fry 18:00-07:00", "did you mean fri"), ("", "is not days, hours or both"), ("18:00-18:00", "same time"),
        ("25:00-26:00", "no clock shows"), ("mon 18-19", "is not days, hours or both"),
        ("18:60-19:00", "no clock shows"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_read_is_refused(line: str, part: str) -> None:
    from timepro.inference.monitor.schedule import parse_schedule

    with pytest.raises(ValueError, match=part):
        parse_schedule([line], None, "key rules.schedule")
