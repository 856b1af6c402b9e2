"""What several drawn answers to each question are worth, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.evaluation import drawn_events, drawn_scores, score
from timepro.events import Event, ParsedAnswer
from timepro.tasks import Sample, find_task

SIREN = Event(1.0, 2.0, "siren")
RIGHT, WRONG, TWO = "<1.00>siren<2.00>", "<3.00>siren<4.00>", "<3.00>siren<4.00><5.00>siren<6.00>"


def sample(name: str, task: str, *events: Event) -> Sample:
    return Sample(name, task, Path("a.flac"), 10.0, "", events, events)


def test_the_mean_is_that_of_whole_test_sets_and_the_best_is_chosen_sample_by_sample() -> None:
    samples = [sample("a", "sed", SIREN), sample("b", "sed", SIREN), sample("c", "sed")]
    drawn = [[RIGHT, WRONG], [TWO, WRONG], ["none", WRONG]]
    found = drawn_scores(score(samples, [WRONG] * 3), drawn, "sed")
    # First draws: 1 right, 2 in the reference, 3 told. Second draws: 0, 2, 3. Best ones: 1, 2, 2, since one wrong event
    # is better than two.
    assert found == {"n": 2, "mean": pytest.approx((2 / 5 + 0) / 2), "best": pytest.approx(2 / 4)}


def test_greedy_answers_drawn_again_are_worth_the_greedy_ones() -> None:
    samples = [sample("a", "sed", SIREN), sample("b", "sed", SIREN, Event(4.0, 5.0, "dog_bark")), sample("c", "sed")]
    texts = [RIGHT, WRONG, TWO]
    scored = score(samples, texts)
    found = drawn_scores(scored, [[text] * 3 for text in texts], "sed")
    assert found["mean"] == found["best"] == pytest.approx(scored.main()["sed"])


def test_each_task_is_judged_on_its_own_samples_by_its_own_metric() -> None:
    query = Event(1.0, 2.0, "")
    samples = [sample("a", "sed", SIREN), sample("b", "ag", query)]
    drawn = [[RIGHT, WRONG], ["<1.00><2.00>", "<1.50><2.00>"]]
    scored = score(samples, [WRONG, "none"])
    assert drawn_scores(scored, drawn, "sed") == {"n": 2, "mean": 0.5, "best": 1.0}
    assert drawn_scores(scored, drawn, "ag") == {"n": 2, "mean": pytest.approx(0.75), "best": pytest.approx(1.0)}


def test_drawn_answers_are_read_as_their_task_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(find_task("ag")), "read", lambda _, text: ParsedAnswer([SIREN], text != "?"))
    assert drawn_events("ag", ["two to three", "?"]) == [[SIREN], []]
    assert drawn_events("sed", [RIGHT, "two to three"]) == [[SIREN], []]
