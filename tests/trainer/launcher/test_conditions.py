"""A run's models asked again: which questions are made once, which fit, and what the workers are asked."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import pytest

from timepro.conditions import KINDS, read_controls
from timepro.config import load_experiment
from trainer.launcher import conditions
from trainer.launcher.checks import limits_of
from trainer.launcher.clips import write_clips
from trainer.launcher.conditions import Conditions, longest_seconds
from trainer.launcher.pipeline import Pipeline
from trainer.launcher.stages import StageLog
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


def configured(*words: str) -> ExperimentConfig:
    own = ["evaluation.conditions=4", "rollout.clips_per_prompt=2", "data.test_clips=6", *words]
    return load_experiment("sed_grpo", own, ExperimentConfig, [EXPERIMENTS])


@pytest.fixture
def prepared(tmp_path: Path):
    """The questions of a run with a test set of six clips."""
    made = write_clips(tmp_path / "data", "test", 6, configured().data, tmp_path)
    assert made == {"clips": 6}

    def _prepared(*words: str, run: str = "run", log: StageLog | None = None) -> Conditions:
        config = configured(*words)
        found = Conditions(config, tmp_path / run)
        test = tmp_path / "data" / "test" / "test.jsonl"
        found.prepare(test, limits_of(config), tmp_path / "cache", log or StageLog())
        return found

    return _prepared


def asked(found: Conditions, run: Path, monkeypatch: pytest.MonkeyPatch, stage: str = "sft") -> list:
    """The samples that the workers are asked about."""
    samples: list = []

    def answers(pool, processor, own, max_tokens, progress):
        samples.extend(own)
        return [f"siren {i}.00-{i + 1}.00" for i in range(len(own))]

    monkeypatch.setattr(conditions, "greedy_answers", answers)
    monkeypatch.setattr(conditions, "Processor", lambda folder: None)
    run.mkdir(exist_ok=True)
    found.ask(stage, SimpleNamespace(pool=nullcontext), run)
    return samples


def test_a_stage_is_asked_once_and_its_answers_are_kept(prepared, tmp_path: Path, monkeypatch) -> None:
    found = prepared()
    samples = asked(found, tmp_path / "run", monkeypatch)
    assert len(samples) == 4 * len(KINDS)
    made = [sample.audio for sample in samples if sample.audio.name.startswith(("silent", "shifted"))]
    assert made and all(found.folders[0] in audio.parents for audio in made)
    longer = [sample for sample in samples if sample.duration > 10.0]
    assert len(longer) == 4 and max(sample.duration for sample in longer) <= 20.0
    controls, texts = read_controls(tmp_path / "run" / "conditions" / "sft.jsonl")
    assert len(controls) == len(texts) == len(samples)
    assert asked(found, tmp_path / "run", monkeypatch) == []  # a resumed run
    assert asked(found, tmp_path / "run", monkeypatch, "grpo")


def test_a_run_that_ended_before_the_last_questions_asks_them_when_it_is_resumed(
    prepared, tmp_path: Path, monkeypatch
) -> None:
    found, run = prepared(), tmp_path / "run"
    (run / "eval").mkdir(parents=True)
    (run / "eval" / "grpo.jsonl").touch()
    (run / "checkpoint").mkdir()
    served: list[Path] = []

    @contextmanager
    def workers(checkpoint: Path):
        served.append(checkpoint)
        yield SimpleNamespace(pool=nullcontext)

    monkeypatch.setattr(conditions, "greedy_answers", lambda pool, processor, own, *rest: ["none"] * len(own))
    monkeypatch.setattr(conditions, "Processor", lambda folder: None)
    finished: Any = SimpleNamespace(run=run, config=configured(), nodes=None, conditions=found, _workers=workers)
    finished._ask_what_lacks = MethodType(Pipeline._ask_what_lacks, finished)
    for _ in range(2):
        Pipeline.post_train(finished, tmp_path / "start")
    assert served == [run / "checkpoint"] and not found.lacks("grpo")


def test_the_audio_is_made_once_for_all_runs_on_a_test_set(prepared) -> None:
    first, second, third = StageLog(), StageLog(), StageLog()
    prepared(log=first)
    prepared(run="other", log=second)
    prepared("evaluation.conditions=3", run="third", log=third)
    assert first.seconds["conditions"] > 0 and second.seconds["conditions"] == 0 and third.seconds["conditions"] > 0


def test_nothing_is_asked_or_made_without_the_setting(prepared, tmp_path: Path, monkeypatch) -> None:
    found = prepared("evaluation.conditions=0")
    assert not found.lacks("sft") and found.folders == [] and not (tmp_path / "cache").exists()
    assert asked(found, tmp_path / "run", monkeypatch) == []


def test_prompts_that_a_worker_would_refuse_are_left_out_and_counted(prepared, tmp_path, monkeypatch, capsys) -> None:
    found = prepared("rollout.max_model_len=420")  # a clip of 10 s has 300 tokens of audio and timestamps
    samples = asked(found, tmp_path / "run", monkeypatch)
    assert 0 < len(samples) < 4 * len(KINDS)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{4 * len(KINDS) - len(samples)} of {4 * len(KINDS)} questions are left out" in said


def test_longer_clips_are_as_long_as_a_model_takes() -> None:
    config = configured()
    limits = limits_of(config)
    assert longest_seconds(config, limits) == 20.0
    long = configured("data.soundscape.max_duration=20")
    assert 20.0 < longest_seconds(long, limits) <= 30.0
    assert longest_seconds(configured("data.soundscape.max_duration=29.9"), limits) == 0.0
    named = replace(config, data=replace(config.data, sft="a", rl="a", validation="a", test="a"))
    assert longest_seconds(named, limits) == 0.0
