"""The best one answer to all questions, by hand and against all others of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.constant_answer import best_constant_answer
from timepro.evaluation import score
from timepro.events import Event
from timepro.tasks import Sample


def question(name: str, duration: float, *events: tuple[float, float], task: str = "ag") -> Sample:
    found = tuple(Event(onset, offset, "") for onset, offset in events)
    return Sample(name, task, Path("a.flac"), duration, "", found, found)


def test_it_is_the_part_of_each_clip_where_sounds_are() -> None:
    samples = [question("a", 10.0, (2.0, 6.0)), question("b", 5.0, (1.0, 3.0)), question("c", 10.0, (8.0, 10.0))]
    found = best_constant_answer(samples, "ag")
    assert found is not None and (found["from"], found["to"]) == (0.2, 0.6)
    assert found["miou"] == pytest.approx(2 / 3) and found["n"] == 3


def test_it_is_none_where_most_sounds_are_not_there() -> None:
    samples = [question("a", 10.0), question("b", 10.0), question("c", 10.0, (2.0, 6.0))]
    found = best_constant_answer(samples, "ag")
    assert found is not None and (found["from"], found["to"]) == (0.0, 0.0)
    assert found["miou"] == pytest.approx(2 / 3) and found["empty"] == 1.0


def test_no_other_run_of_fifths_is_worth_more() -> None:
    spans = [((1.3 * k) % 7, (1.3 * k) % 7 + 0.5 + k % 3) for k in range(1, 9)]
    samples = [question(str(k), 10.0, span) for k, span in enumerate(spans)]
    found = best_constant_answer([*samples, question("sed", 5.0, (0.0, 5.0), task="sed")], "ag")
    texts = [f"<{a}.00><{b}.00>" for a in range(0, 10, 2) for b in range(a + 2, 12, 2)]
    others = [score(samples, [text] * len(samples)).metrics["ag"]["miou"] for text in [*texts, "none"]]
    assert found is not None and found["miou"] == pytest.approx(max(others))


def test_a_task_whose_answers_have_labels_has_no_such_answer() -> None:
    assert best_constant_answer([question("a", 5.0, (0.0, 1.0), task="sed")], "sed") is None
