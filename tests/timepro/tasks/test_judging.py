"""Each task's numbers, by hand."""

from __future__ import annotations

import pytest

from timepro.answers import parse_answer
from timepro.events import Event, ParsedAnswer
from timepro.metrics.bootstrap import micro_f1
from timepro.tasks import available_tasks, find_task

REFERENCES = [[Event(0, 1, "a")], [Event(0, 1, "b")], [], [Event(0, 2, "a")]]
ANSWERS = [parse_answer(text) for text in ("a 0-1", "none", "gibberish", "a 0-2; c 0-1")]


def test_detection_by_hand():
    row = find_task("sed").metrics(REFERENCES, ANSWERS)
    assert row["n"] == 4
    assert row["eb_f1_micro"] == pytest.approx(2 * 2 / (3 + 3))
    assert row["eb_f1_macro"] == pytest.approx((1 + 0) / 2)  # over a and b: the references know no c
    assert row["miou"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)  # the unparsable one counts 0
    assert (row["unparsable"], row["mended"], row["empty"]) == (0.25, 0, 0.25)
    assert (row["precision"], row["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert find_task("sed").counts(REFERENCES, ANSWERS).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 1, 2]]


@pytest.mark.parametrize("task", ["sed", "ag", "dac"])
def test_mended_answers_are_those_read_though_not_as_written(task):
    answers = [parse_answer(text) for text in ("a 0.00-1.00", "a 0.00-1.00; then a", "No sound occurs.", "what?")]
    found = find_task(task)
    row = found.metrics([[Event(0, 1, "a")], [Event(0, 1, "a")], [], []], answers)
    assert (row["mended"], row["unparsable"]) == (0.5, 0.25)
    assert "mended" in [column.key for column in found.columns]


def test_grounding_by_hand():
    references = [[Event(0, 2, "")], [Event(1, 2, ""), Event(3, 4, "")], [], [Event(0, 1, "")]]
    answers = [parse_answer(text) for text in ("0-1", "1-2; 3-4", "none", "what?")]
    row = find_task("ag").metrics(references, answers)
    assert row["miou"] == pytest.approx((0.5 + 1 + 1 + 0) / 4)
    shares = [row[f"r_at_{t}"] for t in (0.3, 0.5, 0.7, 0.9)]
    assert shares == [0.75, 0.75, 0.5, 0.5]
    assert row["unparsable"] == 0.25
    assert "eb_f1_macro" not in row


@pytest.mark.parametrize("task", ["sed", "ag"])
def test_the_counts_add_up_to_the_main_metric(task):
    found = find_task(task)
    row, counts = found.metrics(REFERENCES, ANSWERS), found.counts(REFERENCES, ANSWERS)
    assert micro_f1(counts.sum(axis=0)) == pytest.approx(row[found.main_metric], abs=1e-12)


@pytest.mark.parametrize("task", ["sed", "ag"])
def test_a_task_reports_all_that_its_table_shows(task):
    row = find_task(task).metrics(REFERENCES, ANSWERS)
    assert {column.key for column in find_task(task).columns} <= row.keys()


@pytest.mark.parametrize("function", ["metrics", "counts"])
@pytest.mark.parametrize("task", available_tasks())
def test_references_and_answers_must_pair(task, function):
    with pytest.raises(ValueError, match="0 references and 0 answers"):
        getattr(find_task(task), function)([], [])
    with pytest.raises(ValueError, match="4 references and 1 answers"):
        getattr(find_task(task), function)(REFERENCES, [ParsedAnswer([], True)])
