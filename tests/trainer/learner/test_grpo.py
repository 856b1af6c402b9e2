"""The RL loop's own decisions, with stand-ins for what it calls."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.learner.checkpoints import Checkpoints
from trainer.learner.distributed import FailedTogether
from trainer.learner.grpo import Grpo, GrpoState
from trainer.learner.recovery import WorkersLost
from trainer.settings.checkpoints import CheckpointsConfig
from trainer.settings.grpo import GrpoConfig

from .stand_in_learner import Writes


@pytest.mark.parametrize("failure", [WorkersLost, FailedTogether])
def test_a_validation_that_fails_costs_nothing_of_what_was_trained(failure: type[Exception], alone: None) -> None:
    saved: list[int] = []

    def validate(step: int) -> float:
        raise failure("no worker is left")

    training: Any = Grpo(
        learner=None, sampler=SimpleNamespace(ahead_as_json=lambda: "null", order=SimpleNamespace(state=dict)),
        recovery=None, config=GrpoConfig(validate_every=2), run=None, state=GrpoState(step=2), stop=None,
        tracker=SimpleNamespace(at=lambda *place: None),
        checkpoints=SimpleNamespace(save=lambda learner, step, content, own_files: saved.append(step)),
        validate=validate,
    )  # fmt: skip
    with pytest.raises(failure):
        training._validate()
    assert saved == [2]


def test_keeping_the_best_ends_with_the_start_where_all_else_is_worse(alone: None, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointsConfig(keep=1))
    training: Any = Grpo(
        learner=Writes(), sampler=SimpleNamespace(ahead_as_json=lambda: "null", order=SimpleNamespace(state=dict)),
        recovery=None, config=GrpoConfig(max_steps=0, validate_every=2, keep_best=True), run=None, state=GrpoState(),
        stop=None, tracker=SimpleNamespace(at=lambda *place: None), checkpoints=checkpoints,
        validate={0: 0.4, 2: 0.3, 4: 0.39}.__getitem__,
    )  # fmt: skip
    training.train()
    for step in range(1, 5):
        training.state.step = step
        training._validate()
    assert checkpoints.best() == tmp_path / "step-000000"
