"""An objective of one's own by its import path, and what a step reports of whatever an objective gives."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from trainer.learner import updates
from trainer.learner.learner import Updated
from trainer.learner.noise import GradientNoise
from trainer.learner.objectives import PolicyTokens, objective_of
from trainer.learner.rows import AnswerTokens, Row, collate
from trainer.settings.grpo import GrpoConfig
from trainer.settings.kl import KlConfig
from trainer.settings.mismatch import MismatchConfig
from trainer.settings.objective import ObjectiveConfig

OWN = '''
from trainer.learner.losses import weighted_sum


def reinforce(tokens, config):
    """log p times the advantage, and how long the longest answer is."""
    loss = -weighted_sum(tokens.advantages * tokens.logprobs, tokens.weights)
    counts = tokens.answer_of.bincount()
    return loss, {"own/logprob": weighted_sum(tokens.logprobs.detach(), tokens.weights), "own/length/max": counts.max()}
'''


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    (tmp_path / "own_objective.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_objective:reinforce"


class OneBatch:
    """Stands in for the learner: one micro-batch whose log-probabilities are given; no model and no optimiser."""

    def __init__(self, logprobs: list[float], refuses: bool = False) -> None:
        self.logprobs, self.refuses = torch.tensor(logprobs, requires_grad=True), refuses

    def update(self, rows, loss_function, temperature, rate, measure_noise) -> Updated:
        micro = collate(rows, audio_token_id=99, pad_token_id=0)
        loss, numbers = loss_function(self.logprobs, torch.ones(len(self.logprobs)), micro)
        (self.gradient,) = torch.autograd.grad(loss, self.logprobs)
        measured = GradientNoise(3.0, 2.0) if measure_noise else None
        return Updated({name: float(value.detach()) for name, value in numbers.items()}, 1.0, self.refuses, 1, measured)


def rows(supervised: bool = False) -> list[Row]:
    sampled = [AnswerTokens([1, 2, 3], [-1.0] * 3, advantage=2.0), AnswerTokens([1], [-1.0], advantage=-1.0)]
    right = [AnswerTokens([4, 5], supervised=True)] if supervised else []
    return [Row([7], torch.zeros(0, 4), [*sampled, *right])]


def test_an_objective_of_ones_own_trains_and_reports(alone, own) -> None:
    learner = OneBatch([-0.5] * 4)
    config = GrpoConfig(objective=ObjectiveConfig(name=own))
    config.objective.check()
    report = updates.train_on(learner, [], rows(), config, step=0)
    assert learner.gradient.tolist() == [-0.5, -0.5, -0.5, 0.25]
    metrics = report.as_metrics()
    assert metrics["own/logprob"] == -0.5  # a mean over tokens
    assert metrics["own/length/max"] == 3.0  # the largest, not a mean
    assert {"loss/policy", "entropy", "grad_norm"} <= metrics.keys()
    assert "clip_ratio/low_mean" not in metrics  # that is the clipped objective's


@pytest.mark.parametrize(
    ("every", "step", "refuses", "told"),
    [(0, 0, False, False), (2, 0, False, True), (2, 1, False, False), (2, 4, False, True), (2, 4, True, False)],
)
def test_noise_is_told_of_the_steps_that_measure_it_unless_refused(
    alone, every: int, step: int, refuses: bool, told: bool
) -> None:
    config = GrpoConfig(noise_every=every, max_steps=10)
    metrics = updates.train_on(OneBatch([-0.5] * 4, refuses), [], rows(), config, step=step).as_metrics()
    assert (metrics.get("gradient/noise"), metrics.get("gradient/signal")) == ((3.0, 2.0) if told else (None, None))


@pytest.mark.parametrize("mismatch", ["off", "truncate", "mask"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("name", ["clip", "cispo"])
def test_log_probabilities_of_its_own_are_those_of_an_extra_pass(name: str, ratio: str, mismatch: str) -> None:
    """Of the first update, to the last bit of loss, gradient and everything reported; a banned token among them."""
    torch.manual_seed(0)
    config = ObjectiveConfig(name=name, ratio=ratio, old_policy="learner", mismatch=MismatchConfig(mismatch))
    logprobs, weights = -3 * torch.rand(64), torch.rand(64).round(decimals=1)
    logprobs[5], weights[5] = -torch.inf, 0.0

    def computed(own: torch.Tensor | None) -> list[torch.Tensor]:
        trained = logprobs.clone().requires_grad_()
        sampled = logprobs + 0.3 * torch.linspace(-1, 1, 64)
        sampled[5] = -1.0
        tokens = PolicyTokens(trained, sampled, torch.linspace(-2, 2, 64), weights, torch.arange(64) // 8, own)
        loss, sums = objective_of(name)(tokens, config)
        return [loss.detach(), *torch.autograd.grad(loss, trained), *sums.values()]

    of_a_pass = torch.tensor(logprobs.tolist())  # as `Learner.with_own` keeps them
    first, extra = computed(None), computed(of_a_pass)
    assert len(first) == len(extra) > 3 and first[1].abs().sum() > 0
    for one, other in zip(first, extra, strict=True):
        assert torch.equal(one, other)


def test_an_unknown_objective_is_refused_with_what_there_is(own) -> None:
    with pytest.raises(ValueError, match="grpo.objective.name is 'ppo'; it must be one of clip, cispo"):
        ObjectiveConfig(name="ppo").check()
    with pytest.raises(ValueError, match="module 'own_objective' has no 'ppo'; it has: .*reinforce"):
        objective_of("own_objective:ppo")


def test_a_mean_over_no_tokens_is_absent(alone) -> None:
    config = GrpoConfig(reference_weight=0.5, kl=KlConfig(0.1))
    only_right = [Row([7], torch.zeros(0, 4), [AnswerTokens([4, 5], supervised=True)])]
    metrics = updates.train_on(OneBatch([-0.5] * 2), [], only_right, config, step=0).as_metrics()
    assert metrics["loss/reference"] == 0.5
    for name in ("loss/policy", "kl", "entropy", "sampling/importance_sampling_ratio/mean", "clip_ratio/low_mean"):
        assert name not in metrics, name
    both = updates.train_on(OneBatch([-0.5] * 6), [], rows(supervised=True), config, step=0).as_metrics()
    assert {"loss/reference", "loss/policy", "kl", "entropy"} <= both.keys()
    nothing = updates.train_on(SimpleNamespace(), [], [], config, step=0).as_metrics()
    assert nothing.keys() == {"learning_rate", "perf/skipped_step"}


def test_a_sequence_ratio_wants_one_weight_an_answer() -> None:
    for aggregation in ("dapo", "dr_grpo"):
        with pytest.raises(ValueError, match="clip_low=3e-4 clip_high=4e-4"):
            ObjectiveConfig(aggregation=aggregation, ratio="sequence").check()
    ObjectiveConfig(aggregation="grpo", ratio="sequence").check()
