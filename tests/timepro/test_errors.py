"""Bias by place and length, the temporal bias index and the absent-event rate, against counting by hand."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from timepro.analysis import boundary_errors
from timepro.cli import main
from timepro.errors import GROUPS, absent_event_rate, bias_by, bias_of, temporal_bias_index
from timepro.events import Event, ParsedAnswer
from timepro.runs import Evaluated


def line(reference, found, ok=True, task="sed", duration=10.0):
    return Evaluated("c", task, "?", Path("a.wav"), duration, tuple(reference), "", ParsedAnswer(list(found), ok))


def drawn(rng: random.Random, n: int, duration: float) -> list[Event]:
    starts = [rng.uniform(0, duration - 0.2) for _ in range(n)]
    return [Event(s, min(duration, s + rng.uniform(0.1, 6)), rng.choice("ab")) for s in starts]


@pytest.fixture
def lines() -> list[Evaluated]:
    rng = random.Random(0)
    found = []
    for _ in range(200):
        duration = rng.choice([3.0, 8.0, 25.0, 70.0])
        sizes = rng.randint(0, 3), rng.randint(0, 3)
        found.append(line(*(drawn(rng, n, duration) for n in sizes), ok=rng.random() < 0.9, duration=duration))
    return found


def test_the_index_is_the_mean_of_onset_minus_true_onset_over_the_nearest_pairs(lines) -> None:
    errors = []
    for one in lines:
        for label in "ab":
            true = [e.onset for e in one.reference if e.label == label]
            found = [e.onset for e in one.answer.events if e.label == label and one.answer.ok]
            few, many = sorted((true, found), key=len)
            choices = [list(zip(few, chosen, strict=True)) for chosen in itertools.permutations(many, len(few))]
            best = min(choices, key=lambda pairs: sum(abs(a - b) for a, b in pairs))
            errors += [(b - a) if few is true else (a - b) for a, b in best]
    index, n = temporal_bias_index(lines)
    assert n == len(errors) > 100 and index == pytest.approx(np.mean(errors))
    early = [line([Event(4.0, 5.0, "x")], [Event(1.0, 1.5, "x")])]  # far off, and counted
    assert temporal_bias_index(early) == (-3.0, 1) and len(boundary_errors(early).onset) == 0
    assert temporal_bias_index([line([Event(4.0, 5.0, "")], [Event(5.0, 6.0, "other")], task="ag")]) == (1.0, 1)
    assert math.isnan(temporal_bias_index([line([Event(4.0, 5.0, "x")], [])])[0])


def test_groups_hold_every_found_event_once_and_its_errors(lines) -> None:
    boundaries = boundary_errors(lines)
    rows = []
    for one in lines:
        own = boundary_errors([one])
        rows += [
            (a, b, p, one.duration, d)
            for a, b, p, d in zip(own.onset, own.offset, own.position, own.duration, strict=True)
        ]
    rows = np.array(rows)
    assert len(rows) == len(boundaries.onset) > 50
    for group, column in (("position", 2), ("clip", 3), ("duration", 4)):
        found = bias_by(boundaries, group)
        assert sum(bias.n for bias in found.values()) == len(rows)
        for name, bias in found.items():
            low = float(name.split()[0])
            high = float(name.split()[2]) if " to " in name else math.inf
            last = group == "position" and high == 1.0
            own = rows[(rows[:, column] >= low) & ((rows[:, column] <= high) if last else (rows[:, column] < high))]
            assert asdict(bias) == pytest.approx(
                {
                    "n": len(own), "onset_bias": own[:, 0].mean(), "offset_bias": own[:, 1].mean(),
                    "onset_error": np.abs(own[:, 0]).mean(), "offset_error": np.abs(own[:, 1]).mean(),
                }
            )  # fmt: skip
    assert "60 and more" in bias_by(boundaries, "clip")
    whole = boundary_errors([line([Event(0.0, 20.0, "x")], [Event(0.0, 20.0, "x")], duration=10.0)])
    assert list(bias_by(whole, "position")) == ["0.75 to 1"]  # its middle is the clip's very end
    assert math.isnan(bias_of(boundary_errors([])).onset_bias)
    assert set(GROUPS) == {"position", "clip", "duration"}


def test_absent_events_are_those_of_questions_without_a_right_one() -> None:
    event = [Event(1.0, 2.0, "")]
    lines = [line([], event, task="ag"), line([], [], task="ag"), line([], event, ok=False, task="ag"),
             line([], event, task="ag"), line(event, [], task="ag")]  # fmt: skip
    assert absent_event_rate(lines) == (0.5, 4)
    assert math.isnan(absent_event_rate(lines[-1:])[0])


def test_a_run_and_a_file_of_answers_are_shown(tmp_path: Path, capsys) -> None:
    run = tmp_path / "runs" / "a"
    (run / "eval").mkdir(parents=True)
    event, late = asdict(Event(1.0, 2.0, "x")), asdict(Event(1.3, 2.1, "x"))
    for stage, found in (("sft", [late]), ("grpo", [event])):
        rows = [
            {"id": "c0", "task": "sed", "duration": 4.0, "reference": [event], "events": found, "ok": True},
            {"id": "c1", "task": "sed", "duration": 4.0, "reference": [], "events": found, "ok": True,
             "repairs": ["stray text"]},
        ]  # fmt: skip
        (run / "eval" / f"{stage}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["errors", str(run)]) == 0
    said = capsys.readouterr().out
    (before,) = [row for row in said.splitlines() if row.startswith(" SFT")]
    shares = ["0.0%", "50.0%", "100.0%"]  # unparsable, mended, absent events
    assert before.split()[1:] == ["1", "100.0%", "+0.300", "+0.100", "0.300", "0.100", "+0.300", *shares]
    assert main(["errors", str(run / "eval" / "grpo.jsonl"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["tasks"]["sed"]["grpo"]
    assert report["all"]["onset_bias"] == 0.0 and report["by_position"]["0.25 to 0.5"]["n"] == 1
    assert main(["errors", str(tmp_path / "runs" / "b")]) == 2
    assert "b is not a folder; name a run's folder" in capsys.readouterr().err
