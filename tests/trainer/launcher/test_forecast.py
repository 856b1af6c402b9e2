"""What is said at a run's start of how long it takes, and that earlier runs decide it."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.config import load_experiment
from trainer.launcher.forecast import Part, forecast, parts_of, write_rates
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
MISSING = {"sft": 4000, "rl": 600, "validation": 256, "test": 512}


def experiment(*overrides: str) -> ExperimentConfig:
    return load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)


def test_the_embedded_experiment_is_known_before_its_first_run(tmp_path: Path) -> None:
    text = forecast(parts_of(experiment(), MISSING, 600), tmp_path).as_text()
    assert text.startswith("about ") and "min: data 0.5, SFT 5, GRPO 6, control 2, evaluation 0.5" in text


def test_the_times_of_earlier_runs_decide(tmp_path: Path) -> None:
    parts = parts_of(experiment(), MISSING, 600)
    taken = {"data-sft": 80.0, "sft": 240.0, "grpo": 360.0, "control": 120.0, "evaluate-control": 60.0}
    write_rates(parts, taken, tmp_path)
    second = parts_of(experiment(), dict.fromkeys(MISSING, 0), 0)
    assert forecast(second, tmp_path).as_text() == "about 9 min: GRPO 6, control 2, evaluation 1"
    shorter = parts_of(experiment("grpo.max_steps=75", "control.enabled=false"), dict.fromkeys(MISSING, 0), 600)
    assert forecast(shorter, tmp_path).as_text() == "about 7 min: SFT 4, GRPO 3"
    other = parts_of(experiment("grpo.groups.group_size=16", "learner.ranks=1"), dict.fromkeys(MISSING, 0), 0)
    assert "GRPO 6" in forecast(other, tmp_path).as_text()  # what decides the speed has changed


def test_a_stage_that_nobody_has_timed_is_said_to_be_unknown(tmp_path: Path) -> None:
    parts = [Part("SFT", "sft", 100, "a", None), Part("GRPO", "grpo", 10, "b", 60.0)]
    told = forecast(parts, tmp_path)
    assert told.as_text() == "about 10 min: GRPO 10; no earlier run tells how long SFT takes"
    assert told.share("grpo") == ""
    assert forecast(parts[:1], tmp_path).as_text() == "no earlier run tells how long SFT takes"


def test_a_stage_knows_its_share_of_the_whole(tmp_path: Path) -> None:
    parts = [Part("SFT", "sft", 25, "a", 1.0), Part("GRPO", "grpo", 50, "b", 1.0), Part("control", "c", 25, "d", 1.0)]
    assert forecast(parts, tmp_path).share("grpo") == "25 to 75 % of the whole"


def test_a_control_without_steps_of_its_own_takes_as_long_as_grpo(tmp_path: Path) -> None:
    told = forecast(parts_of(experiment("control.max_steps=0"), MISSING, 0), tmp_path)
    assert told.seconds["control"] == pytest.approx(told.seconds["grpo"])
    write_rates(told.parts, {"grpo": 500.0, "control": 400.0}, tmp_path)
    assert forecast(told.parts, tmp_path).seconds["grpo"] == pytest.approx(500.0)
