"""Several optimiser updates on one step's groups (the update itself is a stand-in here)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rollout.client import Answer, AnswerGroup
from trainer.learner import updates
from trainer.learner.updates import UpdateReport, train_on, whole_divisor
from trainer.settings.groups import GroupsConfig
from trainer.settings.grpo import GrpoConfig
from trainer.settings.mismatch import MismatchConfig
from trainer.settings.objective import ObjectiveConfig


@pytest.fixture
def seen(alone, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], float | None]]:
    """The rows and the divisor of each update."""
    seen: list[tuple[list[int], float | None]] = []

    def stand_in(learner, rows, config, step, divide, first):
        assert first == (len(seen) % config.minibatches == 0)
        seen.append((list(rows), divide))
        if not any(rows):  # groups without spread: nothing to learn from
            return UpdateReport(0.1)
        number = float(len(seen))
        return UpdateReport(0.1, {"loss/policy": number, "ratio/max": 3.0 - number}, refused=1.0, micro_batches=2)

    monkeypatch.setattr(updates, "_update", stand_in)
    return seen


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_every_group_is_trained_on_once(seen, parts: int) -> None:
    train_on(None, [], [1, 2, 3, 4, 5], GrpoConfig(minibatches=parts), step=0)
    rows = [rows for rows, _ in seen]
    assert len(rows) == parts
    assert sorted(row for part in rows for row in part) == [1, 2, 3, 4, 5]
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_the_step_reports_means_the_largest_ratio_and_what_adds_up(seen) -> None:
    report = train_on(None, [], [1, 2], GrpoConfig(minibatches=2), step=0)
    assert report.metrics == {"loss/policy": 1.5, "ratio/max": 2.0}
    assert (report.refused, report.micro_batches, report.skipped) == (2.0, 4, False)


class Learner:
    """Its extra forward passes are counted, by rows."""

    def __init__(self, seen) -> None:
        self.passes, self._seen = [], seen

    def with_own(self, rows, temperature):
        assert not self._seen, "after an update the weights are others"
        self.passes.append(list(rows))
        return [(row, temperature) for row in rows]


@pytest.mark.parametrize(
    ("settings", "parts", "passes"),
    [({"old_policy": "learner"}, 1, []), ({"old_policy": "learner"}, 2, [[2, 4]]),
     ({"old_policy": "learner"}, 3, [[2, 5, 3]]), ({}, 2, []), ({"mismatch": MismatchConfig("mask")}, 1, []),
     ({"mismatch": MismatchConfig("mask")}, 2, [[2, 4]])],
)  # fmt: skip
def test_own_log_probabilities_are_computed_for_later_updates_alone(seen, settings, parts, passes) -> None:
    """In the first update the ratio is 1 by construction."""
    config = GrpoConfig(minibatches=parts, groups=GroupsConfig(temperature=0.7), objective=ObjectiveConfig(**settings))
    learner = Learner(seen)
    train_on(learner, [], [1, 2, 3, 4, 5], config, step=0)
    assert learner.passes == passes
    known = {row for rows in passes for row in rows}
    expected = [[(row, 0.7) if row in known else row for row in [1, 2, 3, 4, 5][i::parts]] for i in range(parts)]
    assert [rows for rows, _ in seen] == expected


def test_a_part_without_anything_to_learn_from_does_not_count(seen) -> None:
    report = train_on(None, [], [0, 7], GrpoConfig(minibatches=2), step=0)
    assert report.metrics["loss/policy"] == 2.0 and report.micro_batches == 2
    assert train_on(None, [], [0, 0], GrpoConfig(minibatches=2), step=0).as_metrics() == {
        "learning_rate": 0.1,
        "perf/skipped_step": 1.0,
    }


def group(lengths: list[int], teaches: bool) -> SimpleNamespace:
    answers = [Answer([1] * n, [-1.0] * n, False, (0,)) for n in lengths]
    rewards = updates.np.array([float(teaches and i == 0) for i in range(len(lengths))])
    return SimpleNamespace(
        sampled=AnswerGroup("a", [7], answers, "worker", 0.1), answers=answers, rewards=rewards, teaches=teaches
    )


@pytest.mark.parametrize(
    ("aggregation", "divisor", "expected"),
    [("dapo", "teaching", None), ("grpo", "teaching", None), ("dapo", "all", 14.0), ("grpo", "all", 6.0),
     ("dr_grpo", "teaching", 60.0), ("dr_grpo", "all", 60.0)],
)  # fmt: skip
def test_a_divisor_that_is_constant_counts_flat_groups_too(alone, aggregation, divisor, expected) -> None:
    config = GrpoConfig(
        groups=GroupsConfig(max_tokens=10), objective=ObjectiveConfig(aggregation=aggregation, divisor=divisor)
    )
    groups = [group([3, 1, 2], teaches=True), group([4, 2, 2], teaches=False)]
    assert whole_divisor(groups, config) == expected
    if expected:
        assert whole_divisor([group([3, 1, 2], True), group([4, 2, 2], True)], config) == expected


def test_a_constant_divisor_is_shared_out_among_the_updates(seen) -> None:
    config = GrpoConfig(
        minibatches=2, groups=GroupsConfig(max_tokens=10), objective=ObjectiveConfig(aggregation="dr_grpo")
    )
    train_on(None, [group([3, 1, 2], True), group([4, 2, 2], False)], [1, 2], config, step=0)
    assert [divide for _, divide in seen] == [30.0, 30.0]
