"""Several optimiser updates on one step's groups (the update itself is a stand-in here)."""

from __future__ import annotations

import pytest

from trainer.learner import grpo
from trainer.learner.grpo import update_in_parts
from trainer.settings.groups import GroupsConfig
from trainer.settings.grpo import GrpoConfig
from trainer.settings.mismatch import MismatchConfig
from trainer.settings.objective import ObjectiveConfig


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    seen: list[list[int]] = []

    def stand_in(learner, rows, config, step):
        seen.append(list(rows))
        if not any(rows):  # groups without spread: nothing to learn from
            return {"learning_rate": 0.1, "skipped": 1.0}
        number = float(len(seen))
        return {"learning_rate": 0.1, "skipped": 0.0, "policy_loss": number, "ratio_max": 3.0 - number, "refused": 1.0,
                "micro_batches": 2.0}  # fmt: skip

    monkeypatch.setattr(grpo, "update", stand_in)
    return seen


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_every_group_is_trained_on_once(updates, parts: int) -> None:
    update_in_parts(None, [1, 2, 3, 4, 5], GrpoConfig(minibatches=parts), step=0)
    assert len(updates) == parts
    assert sorted(row for part in updates for row in part) == [1, 2, 3, 4, 5]
    assert max(map(len, updates)) - min(map(len, updates)) <= 1


def test_the_step_reports_means_the_largest_ratio_and_what_adds_up(updates) -> None:
    report = update_in_parts(None, [1, 2], GrpoConfig(minibatches=2), step=0)
    assert report["policy_loss"] == 1.5 and report["ratio_max"] == 2.0
    assert (report["refused"], report["micro_batches"], report["skipped"]) == (2.0, 4.0, 0.0)


class Learner:
    def with_own(self, rows, temperature):
        return [(row, temperature) for row in rows]


@pytest.mark.parametrize(
    ("settings", "parts", "asked"),
    [({"old_policy": "learner"}, 2, True), ({"old_policy": "learner"}, 1, False), ({}, 2, False),
     ({"mismatch": MismatchConfig("mask")}, 2, True)],
)  # fmt: skip
def test_the_learners_own_log_probabilities_are_taken_before_the_first_of_several_updates(
    updates, settings, parts, asked
) -> None:
    config = GrpoConfig(minibatches=parts, groups=GroupsConfig(temperature=0.7), objective=ObjectiveConfig(**settings))
    update_in_parts(Learner(), [1, 2], config, step=0)
    assert sorted(row for part in updates for row in part) == ([(1, 0.7), (2, 0.7)] if asked else [1, 2])


def test_a_part_without_anything_to_learn_from_does_not_count(updates) -> None:
    report = update_in_parts(None, [0, 7], GrpoConfig(minibatches=2), step=0)
    assert report["policy_loss"] == 2.0 and report["micro_batches"] == 2.0
    assert update_in_parts(None, [0, 0], GrpoConfig(minibatches=2), step=0)["skipped"] == 1.0
