"""Supervised fine-tuning when a step fails: what is done is kept."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.learner import distributed, sft
from trainer.learner.checkpoint_files import STATE
from trainer.learner.checkpoints import Checkpoints
from trainer.learner.distributed import FailedTogether
from trainer.learner.learner import Updated
from trainer.learner.order import Mixture, share
from trainer.learner.rows import AnswerTokens
from trainer.settings.checkpoints import CheckpointsConfig
from trainer.settings.sft import SftConfig


class Frames:
    """What was asked for, and what was said to be asked for next."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.ahead: list[list[str]] = []

    def __call__(self, audio: list[str]) -> list[str]:
        self.asked.append(audio)
        return audio

    def read_ahead(self, audio: list[str]) -> None:
        self.ahead.append(audio)


class Learner:
    """Takes steps until a row does not fit."""

    processor = None

    def __init__(self, steps: int = 2, at_start: float = 4.0) -> None:
        self.steps, self.at_start, self.updates, self.clips = steps, at_start, 0, Frames()

    def start(self) -> None: ...

    def seed_dropout(self, step: int) -> None: ...

    @property
    def frames(self) -> Frames:
        return self.clips

    def fitting(self, rows: list[Any]) -> list[Any]:
        if self.updates == self.steps:
            raise ValueError("sample b does not fit")
        return rows

    def update(self, rows: list[Any], loss: Any, temperature: float, learning_rate: float) -> Updated:
        self.updates += 1
        return Updated({"loss": 1.0}, 1.0, False, 1)

    def cross_entropy(self, rows: list[Any]) -> tuple[float, float]:
        return {0: self.at_start, 1: 3.0, 2: 1.0, 3: 2.0, 4: 1.5}[self.updates], 1.0

    def save(self, folder: Path, state: dict[str, Any], with_encoder: bool, own_files: None) -> None:
        folder.mkdir(parents=True)
        (folder / STATE).write_text(json.dumps(state))

    def load(self, folder: Path, checked: bool) -> dict[str, Any]:
        state = json.loads((folder / STATE).read_text())
        self.updates = state["step"]
        return state


def sft_of(learner: Learner, order: Mixture, saved: list[Any], monkeypatch: pytest.MonkeyPatch, **validation: Any):
    samples = [SimpleNamespace(audio=str(i)) for i in range(8)]
    monkeypatch.setattr(
        sft, "target_row", lambda processor, sample, frames: SimpleNamespace(answers=[AnswerTokens([1])], length=10)
    )
    return sft.Sft(
        learner=learner, samples=samples, order=order, validation=samples[:1] if validation else [],
        config=SftConfig(batch_size=2, **validation),
        checkpoints=SimpleNamespace(save=lambda learner, step, state, with_encoder: saved.append((step, state))),
        stop=SimpleNamespace(agreed=lambda: 0), max_steps=4, max_seconds=0.0, title="SFT",
        tracker=SimpleNamespace(at=lambda *a: None, resume_from=lambda *a: None, log=lambda *a: None),
    )  # fmt: skip


def test_a_step_that_fails_is_saved_before_and_taken_again_by_a_resumed_run(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, order = [], Mixture([8], [1.0], 0)
    training = sft_of(Learner(), order, saved, monkeypatch)
    with pytest.raises(FailedTogether, match="building rows failed: rank 0: ValueError: sample b does not fit"):
        training.train(None)
    undisturbed = Mixture([8], [1.0], 0)
    undisturbed.take(4)
    ((step, state),) = saved
    assert step == state["step"] == 2 and state["cursor"] == undisturbed.state()


@pytest.mark.parametrize(("every", "steps"), [(3, 3), (0, 4)])
def test_a_validation_that_fails_costs_nothing_of_what_was_trained(
    every: int, steps: int, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Any] = []
    training = sft_of(Learner(steps), Mixture([8], [1.0], 0), saved, monkeypatch, validate_every=every)
    with pytest.raises(FailedTogether, match="building validation rows failed: rank 0: ValueError: sample b"):
        training.train(None)
    assert [(step, state["step"]) for step, state in saved] == [(steps, steps)]


@pytest.mark.parametrize(("every", "validated"), [(0, [4]), (2, [2, 4]), (3, [3, 4])])
def test_what_is_logged_holds_loss_speed_memory_and_every_validation(
    every: int, validated: list[int], alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    training = sft_of(Learner(99), Mixture([8], [1.0], 0), [], monkeypatch, validate_every=every, log_every=2)
    training.tracker.log = lambda step, metrics: logged.append((step, metrics))
    training.train(None)
    assert [step for step, metrics in logged if "eval/validation/loss" in metrics] == validated
    losses = [(step, metrics) for step, metrics in logged if "loss" in metrics]
    assert [(step, metrics["num_tokens"]) for step, metrics in losses] == [(2, 40.0), (4, 80.0)]
    for _, metrics in losses:
        assert metrics["perf/tokens_per_second"] == pytest.approx(20 / metrics["step_time"])
        assert metrics["memory/rank_peak_gib"] > 0


def test_a_resumed_job_counts_its_tokens_on(alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    learner = Learner(99)
    training = sft_of(learner, Mixture([8], [1.0], 0), [], monkeypatch, log_every=1)
    training.checkpoints = Checkpoints(tmp_path, CheckpointsConfig(keep=1))
    training.usage.tokens = 1000.0
    training._save(3, 1.0)
    logged: list[dict[str, float]] = []
    again = sft_of(learner, Mixture([8], [1.0], 0), [], monkeypatch, log_every=1)
    again.tracker.log = lambda step, metrics: logged.append(metrics)
    again.train(tmp_path / "step-000003")
    assert logged[0]["num_tokens"] == 1020.0


@pytest.mark.parametrize(("every", "at_start", "kept"), [(1, 4.0, 2), (3, 4.0, 4), (3, 1.2, 0)])
def test_it_ends_with_the_step_of_the_lowest_validation_loss_where_asked_to(
    every: int, at_start: float, kept: int, alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    learner = Learner(99, at_start)
    training = sft_of(learner, Mixture([8], [1.0], 0), [], monkeypatch, validate_every=every, keep_best=True)
    training.checkpoints = Checkpoints(tmp_path, CheckpointsConfig(keep=1))
    report = training.train(None)
    assert (report["kept_step"], report["steps"], learner.updates) == (kept, 4, kept)
    assert report["validation_loss"] == {0: at_start, 2: 1.0, 4: 1.5}[kept]


@pytest.mark.parametrize("rank", [0, 1])
def test_each_step_is_read_ahead_and_the_order_stays_as_it_was(
    rank: int, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the end of an epoch, on both of two ranks; nothing behind the last step."""
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    learner, order = Learner(99), Mixture([5, 3], [2.0, 1.0], 0)
    training = sft_of(learner, order, [], monkeypatch)
    training.train(None)
    undisturbed = Mixture([5, 3], [2.0, 1.0], 0)
    expected = [[str(i) for i in share(undisturbed.take(2), rank, 2)] for _ in range(4)]
    assert learner.clips.asked == expected
    assert learner.clips.ahead == expected[1:]
    assert order.state() == undisturbed.state()
