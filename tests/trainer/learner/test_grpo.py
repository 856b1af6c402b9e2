"""The RL loop's own decisions, with stand-ins for what it calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trainer.learner.distributed import FailedTogether
from trainer.learner.grpo import Grpo, GrpoState
from trainer.learner.recovery import WorkersLost
from trainer.settings.grpo import GrpoConfig


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
        training._validate_and_save()
    assert saved == [2]
