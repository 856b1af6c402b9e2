"""An answer that a reward gave up on: no advantage, no weight, in no mean, and named in record and metrics."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rewards import build_reward
from rewards.pool import shared_pool
from rollout.client import Answer, AnswerGroup
from timepro.events import Event
from timepro.tasks import Sample
from trainer.learner.groups import Asked, GroupSampler, record
from trainer.learner.sender import SyncReport
from trainer.learner.step_metrics import PhaseClock, Step, step_metrics
from trainer.learner.updates import UpdateReport, advantages_of, build_rows
from trainer.settings.advantage import AdvantageConfig
from trainer.settings.grpo import GrpoConfig

TEXTS = ["dog 0.40-1.20", "dog 0.40-1.20; dog 3-4", "dog 5-6", "none"]
SAMPLE = Sample("clip-1", "sed", Path("/a.flac"), 5.0, "?", (Event(0.4, 1.2, "dog"),), ())
PROCESSOR = SimpleNamespace(answer_text=lambda ids: TEXTS[ids[0]])


class GivesUp:
    """Event-based F1, but it cannot score the texts it is told of."""

    def __init__(self, texts):
        self.texts, self.inner = texts, build_reward("eb_f1")

    def __call__(self, group):
        values = self.inner.reward(group)
        return [math.nan if c.text in self.texts else v for c, v in zip(group.completions, values, strict=True)]


@pytest.fixture
def scored(alone):

    def make(*unscored, parts=None):
        reward = build_reward({"name": "eb_f1", "on_error": "skip"})
        reward.reward = GivesUp([TEXTS[i] for i in unscored])
        sampler = GroupSampler(PROCESSOR, None, reward, [SAMPLE], None, config_of(parts), 0, None)
        answers = [Answer([i], [-0.5], i == 3, (0,)) for i in range(4)]
        return sampler.scorer.score([SAMPLE], [AnswerGroup("clip-1", [7], answers, "worker", 0.1)])

    return make


def config_of(parts=None, **settings):
    return GrpoConfig(advantage=AdvantageConfig(parts=parts or {}), **settings)


def rows_of(groups, parts=None, **settings):
    processor = SimpleNamespace(expanded_prompt=lambda question, n_frames, before: [7])
    learner = SimpleNamespace(
        frames=lambda audio: [torch.zeros(1, 2)] * len(audio), processor=processor, fitting=lambda rows: rows
    )
    config = config_of(parts, **settings)
    return build_rows(learner, groups, advantages_of(groups, config), config)


def test_it_has_no_weight_and_the_others_are_compared_without_it(scored):
    (row,) = rows_of(scored(1), mask_truncated=False)
    assert [answer.weight for answer in row.answers] == [1.0, 0.0, 1.0, 1.0]
    rest = np.array([1.0, 0.0, 0.0])
    expected = (rest - rest.mean()) / (rest.std() + 1e-4)
    assert [answer.advantage for answer in row.answers] == pytest.approx([expected[0], 0.0, *expected[1:]])


def test_a_truncated_answer_has_no_weight_either(scored):
    (row,) = rows_of(scored(1))
    assert [answer.weight for answer in row.answers] == [1.0, 0.0, 1.0, 0.0]


def test_a_group_that_is_left_without_spread_teaches_nothing(scored):
    assert rows_of(scored(0, 1)) == []
    assert rows_of(scored(0, 1, 2, 3)) == []


def test_parts_are_compared_on_their_own_without_it(scored):
    weights = {"eb_f1": 2.0}
    (row,) = rows_of(scored(1, parts=weights), parts=weights, mask_truncated=False)
    assert [answer.weight for answer in row.answers] == [1.0, 0.0, 1.0, 1.0]
    above, others = row.answers[0].advantage, [answer.advantage for answer in row.answers[2:]]
    assert others == pytest.approx([-above / 2] * 2, rel=1e-3) and above > 0 == row.answers[1].advantage
    assert rows_of(scored(0, 1, parts=weights), parts=weights) == []


def test_a_task_whose_reward_has_none_of_the_compared_parts_is_refused(scored):
    with pytest.raises(ValueError, match="grpo.advantage.parts names miou; the reward of this task records only eb_f1"):
        scored(parts={"miou": 1.0})


def test_the_record_says_why_and_is_json(scored, tmp_path):
    groups = scored(1)
    record(tmp_path, 1, groups, groups, [np.zeros(len(group.rewards)) for group in groups])
    text = (tmp_path / "rollouts" / "step-000001.rank0.jsonl").read_text()
    assert "NaN" not in text
    answers = json.loads(text)["answers"]
    assert [answer["reward"] for answer in answers] == [1.0, None, 0.0, 0.0]
    assert [answer["parts"]["eb_f1"] for answer in answers] == [1.0, None, 0.0, 0.0]
    assert [answer.get("skipped") for answer in answers] == [None, {"eb_f1": "value nan is not finite"}, None, None]


def metrics_of(groups, **about):
    clock = PhaseClock()
    with clock("generate"):
        pass
    sync = SyncReport(*[0] * len(SyncReport.__dataclass_fields__))
    step = Step(clock, drawn=groups, trained=groups, report=UpdateReport(0.0), sync=sync, **about)
    return step_metrics(step, ["eb_f1"], 0)


def test_metrics_count_it_and_leave_it_out_of_the_means(scored):
    metrics = metrics_of([*scored(1), *scored(1, 2)])
    assert metrics["rewards/eb_f1/skipped"] == 3
    assert metrics["reward"] == pytest.approx(2 / 5)
    assert metrics["rewards/eb_f1/mean"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert metrics["reward_std"] == pytest.approx((np.std([1, 0, 0]) + np.std([1, 0])) / 2)
    assert "rewards/eb_f1/skipped" not in metrics_of(scored())


def test_speed_and_memory_are_reported(scored):
    groups = scored()
    metrics = metrics_of(groups)
    tokens = sum(len(g.prompt_token_ids) + sum(len(a.token_ids) for a in g.answers) for g in groups)
    assert metrics["perf/tokens"] == tokens > 0
    assert metrics["perf/tokens_per_second"] == pytest.approx(tokens / metrics["step_time"])
    assert 0.01 < metrics["memory/rank_peak_gib"] < 1000


def test_lengths_and_repeats_within_a_group_are_reported(scored):
    (group,) = scored()
    longer = replace(group.answers[0], token_ids=[0, 0, 0])
    sampled = replace(group.sampled, answers=[*group.answers[:3], longer])
    metrics = metrics_of([replace(group, sampled=sampled, texts=["a", "b", "a", "a"]), group])
    assert metrics["completions/repeated_ratio"] == 2 / 8
    assert (metrics["completions/min_length"], metrics["completions/max_length"]) == (1.0, 3.0)
    assert metrics["completions/mean_length"] == 10 / 8


def test_there_is_no_rate_of_answers_that_were_there_before_the_step(scored):
    def asked(ahead):
        return Asked(1, 0, [], {}, groups=[], ahead=ahead)

    assert "perf/answers_per_second" in metrics_of(scored(), asked=asked(ahead=False))
    assert "perf/answers_per_second" not in metrics_of(scored(), asked=asked(ahead=True))


def test_a_slow_reward_gets_all_groups_ahead_and_gives_the_same(scored):
    reward = build_reward({"name": "eb_f1", "slow": True})
    sampler = GroupSampler(PROCESSOR, None, reward, [SAMPLE], None, GrpoConfig(), 0, None)
    answers = [Answer([i], [-0.5], False, (0,)) for i in range(4)]
    groups = sampler.scorer.score([SAMPLE] * 3, [AnswerGroup("clip-1", [7], answers, "worker", 0.1)] * 3)
    try:
        for group in groups:
            np.testing.assert_array_equal(group.rewards, scored()[0].rewards)
        assert not reward._ahead
    finally:
        shared_pool().close()


def test_a_step_without_any_scored_answer_has_metrics(scored):
    metrics = metrics_of(scored(0, 1, 2, 3))
    assert metrics["rewards/eb_f1/skipped"] == 4
    assert metrics["frac_reward_zero_std"] == 1.0
    assert "reward" not in metrics  # a mean over nothing is absent, not 0
    assert all(math.isfinite(value) for value in metrics.values())
