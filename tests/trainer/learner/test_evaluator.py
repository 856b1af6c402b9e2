"""Evaluation during training: on which samples, and what is said and recorded of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.evaluation import score
from timepro.events import Event
from timepro.metrics.bootstrap import paired_bootstrap
from timepro.tasks import Sample
from trainer.learner.evaluator import Evaluator, some
from trainer.settings.evaluation import EvaluationConfig

REFERENCE = (Event(0.2, 1.0, "siren"),)
SAMPLES = [Sample(f"clip-{i}", "sed", Path("a.wav"), 2.0, "What?", REFERENCE, REFERENCE) for i in range(40)]


def texts(right: int) -> list[str]:
    return ["siren 0.20-1.00" if i < right else "none" for i in range(len(SAMPLES))]


class Tracker:
    records_tables = is_new = False

    def __init__(self) -> None:
        self.logged, self.charted, self.summed = [], [], {}

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.logged.append((step, metrics))

    def chart(self, step: int, values: dict[str, float]) -> None:
        self.charted.append((step, values))

    def summary(self, values: dict[str, float]) -> None:
        self.summed |= values


@pytest.fixture
def evaluator(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluator:
    """One whose weights of version N answer N samples right."""
    monkeypatch.setattr(Evaluator, "_scored", lambda self, samples, version, title: score(samples, texts(version)))
    return Evaluator(None, None, None, EvaluationConfig(), tmp_path, Tracker(), SAMPLES, SAMPLES)


def test_some_samples_are_spread_evenly_and_always_the_same() -> None:
    assert [sample.id for sample in some(SAMPLES, 4)] == ["clip-0", "clip-10", "clip-20", "clip-30"]
    assert len({sample.id for sample in some(SAMPLES, 39)}) == 39
    for all_of_them in (0, 40, 100):
        assert some(SAMPLES, all_of_them) == SAMPLES


def test_a_validation_is_said_with_its_cost_and_recorded(evaluator: Evaluator, capsys) -> None:
    value = evaluator.validate(30, step=50)
    assert f"step 50: Eb-F1 micro {value:.3f} on 40 validation samples (0 s)" in capsys.readouterr().err
    ((step, metrics),) = evaluator.tracker.logged
    assert step == 50 and metrics["eval/validation/eb_f1_micro"] == value == pytest.approx(60 / 70)


def test_tests_are_points_over_the_steps_and_the_gain_has_an_interval(evaluator: Evaluator) -> None:
    evaluator.test("sft", 10, step=0)
    assert not any(key.startswith("gain/") for key in evaluator.tracker.summed)
    evaluator.test("grpo", 30, step=250)
    before, after = score(SAMPLES, texts(10)), score(SAMPLES, texts(30))
    values = [(step, charted["eval/test/eb_f1_micro"]) for step, charted in evaluator.tracker.charted]
    assert values == [(0, before.main()["sed"]), (250, after.main()["sed"])]
    value, (low, high) = paired_bootstrap(before.counts("sed"), after.counts("sed"))
    found = {key: number for key, number in evaluator.tracker.summed.items() if key.startswith("gain/")}
    names = ("gain/eb_f1_micro", "gain/eb_f1_micro/low", "gain/eb_f1_micro/high")
    assert found == dict(zip(names, (value, low, high), strict=True))
    assert 0 < low < value < high
