"""Objectives and their aggregation, each against a loop over answers and tokens, and against autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.learner.losses import divisor, kl_sum, token_weight
from trainer.learner.objectives import PolicyTokens, objective_of
from trainer.settings.kl import KlConfig
from trainer.settings.mismatch import MismatchConfig
from trainer.settings.objective import AGGREGATIONS, ObjectiveConfig

LENGTHS = [3, 1, 5, 2]
ADVANTAGES = [1.2, -0.7, -1.5, 0.4]
WEIGHTS = [1.0, 1.0, 0.5, 1.0]
MAX_TOKENS = 6


def batch(seed=0):
    rng = np.random.default_rng(seed)
    new, old = rng.uniform(-3, 0, sum(LENGTHS)), rng.uniform(-3, 0, sum(LENGTHS))
    return new.tolist(), old.tolist()


def answers(values):
    """Token values cut into answers."""
    starts = np.cumsum([0, *LENGTHS])
    return [values[a:b] for a, b in zip(starts, starts[1:], strict=False)]


def loss_of(config, new, old, which=range(4), own=None):
    """The numerator over some of the answers, as one micro-batch, and its gradient by the new log-probabilities."""
    which = list(which)
    per_token = {i: token_weight(LENGTHS[i], WEIGHTS[i], config.aggregation) for i in which}
    places = [(k, i) for k, i in enumerate(which) for _ in range(LENGTHS[i])]
    leaf = torch.tensor([x for i in which for x in answers(new)[i]], dtype=torch.float64, requires_grad=True)
    tokens = PolicyTokens(
        leaf,
        torch.tensor([x for i in which for x in answers(old)[i]], dtype=torch.float64),
        torch.tensor([ADVANTAGES[i] for _, i in places], dtype=torch.float64),
        torch.tensor([per_token[i] for _, i in places], dtype=torch.float64),
        torch.tensor([k for k, _ in places]),
        torch.tensor(own, dtype=torch.float64) if own is not None else None,
    )
    loss, sums = objective_of(config.name)(tokens, config)
    (gradient,) = torch.autograd.grad(loss, leaf)
    count = divisor([LENGTHS[i] for i in which], list(per_token.values()), config.aggregation, MAX_TOKENS)
    return {"loss": loss, **sums}, gradient.tolist(), count


def clipped(ratio, advantage, config):
    gain = min(ratio * advantage, min(max(ratio, 1 - config.clip_low), 1 + config.clip_high) * advantage)
    return max(gain, config.dual_clip * advantage) if config.dual_clip and advantage < 0 else gain


def by_hand(config, new, old):
    """The mean loss, by the definitions."""
    total = 0.0
    for n, o, length, advantage, weight in zip(answers(new), answers(old), LENGTHS, ADVANTAGES, WEIGHTS, strict=True):
        logs = [a - b for a, b in zip(n, o, strict=True)]
        sequence = math.exp(sum(logs) / length)
        ratios = [sequence if config.ratio == "sequence" else math.exp(log) for log in logs]
        gains = [clipped(ratio, advantage, config) for ratio in ratios]
        if config.name == "cispo":
            gains = [min(r, 1 + config.clip_high) * advantage * logp for r, logp in zip(ratios, n, strict=True)]
        total -= weight * sum(gains) / (length if config.aggregation == "grpo" else 1)
    tokens = sum(length * weight for length, weight in zip(LENGTHS, WEIGHTS, strict=True))
    sequences = sum(WEIGHTS)
    return total / {"dapo": tokens, "grpo": sequences, "dr_grpo": len(LENGTHS) * MAX_TOKENS}[config.aggregation]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize(("name", "dual_clip"), [("clip", 0.0), ("clip", 1.5), ("cispo", 0.0)])
def test_every_objective_is_its_definition(aggregation, ratio, name, dual_clip):
    config = ObjectiveConfig(aggregation, name=name, ratio=ratio, clip_low=0.2, clip_high=0.3, dual_clip=dual_clip)
    for seed in range(20):
        new, old = batch(seed)
        terms, _, count = loss_of(config, new, old)
        assert terms["loss"].item() / count == pytest.approx(by_hand(config, new, old), rel=1e-9)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_micro_batches_add_up_to_the_whole_batch(aggregation, ratio):
    config = ObjectiveConfig(aggregation, ratio=ratio)
    new, old = batch(3)
    whole, gradient, count = loss_of(config, new, old)
    parts = [loss_of(config, new, old, which) for which in ([0, 1], [2], [3])]
    assert sum(terms["loss"].item() for terms, _, _ in parts) == pytest.approx(whole["loss"].item(), rel=1e-12)
    assert [g for _, part, _ in parts for g in part] == pytest.approx(gradient, rel=1e-12)
    assert sum(part for _, _, part in parts) == pytest.approx(count)


def test_a_long_answer_counts_more_only_where_tokens_are_counted():
    _, gradient, _ = loss_of(ObjectiveConfig("dapo", clip_low=1.0, clip_high=9.0), [-1.0] * 11, [-1.0] * 11)
    _, even, _ = loss_of(ObjectiveConfig("grpo", clip_low=1.0, clip_high=9.0), [-1.0] * 11, [-1.0] * 11)
    for i in range(4):
        assert sum(answers(gradient)[i]) == pytest.approx(-LENGTHS[i] * WEIGHTS[i] * ADVANTAGES[i])
        assert sum(answers(even)[i]) == pytest.approx(-WEIGHTS[i] * ADVANTAGES[i])


def test_a_sequence_ratio_moves_all_tokens_of_its_answer_alike():
    new, old = batch(5)
    _, gradient, _ = loss_of(ObjectiveConfig(ratio="sequence", clip_low=1.0, clip_high=99.0), new, old)
    for n, o, length, advantage, weight, part in zip(
        answers(new), answers(old), LENGTHS, ADVANTAGES, WEIGHTS, answers(gradient), strict=True
    ):
        ratio = math.exp(sum(a - b for a, b in zip(n, o, strict=True)) / length)
        assert part == pytest.approx([-weight * advantage * ratio] * length)  # length tokens of 1 / length each


def test_cispo_keeps_a_gradient_where_clipping_has_none():
    new, old = [-0.1] * 11, [-2.0] * 11  # a ratio far above the range
    _, clip, _ = loss_of(ObjectiveConfig(name="clip"), new, old)
    _, cispo, _ = loss_of(ObjectiveConfig(name="cispo", clip_high=0.28), new, old)
    assert answers(clip)[0] == [0.0] * 3
    assert answers(cispo)[0] == pytest.approx([-1.28 * ADVANTAGES[0]] * 3)


def test_dual_clip_bounds_what_a_bad_answer_can_push():
    new, old = [-0.1] * 11, [-3.0] * 11
    _, free, _ = loss_of(ObjectiveConfig(), new, old)
    terms, bounded, _ = loss_of(ObjectiveConfig(dual_clip=3.0), new, old)
    assert min(answers(free)[1]) > 10
    assert answers(bounded)[1] == [0.0]
    assert math.isfinite(terms["loss"].item())


def corrections_by_hand(log_ratios, config):
    """w of every token of one answer, by the definition."""
    values = [math.exp(sum(log_ratios) if config.level == "sequence" else x) for x in log_ratios]
    if config.mode == "truncate":
        return [min(w, config.cap) for w in values]
    return [w if 1 / config.cap <= w <= config.cap else 0.0 for w in values]


@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_a_corrected_mismatch_is_a_bounded_constant_weight(mode, level, ratio):
    mismatch = MismatchConfig(mode, level, cap=1.5)
    for seed in range(10):
        new, old = batch(seed)
        terms, gradient, _ = loss_of(ObjectiveConfig(ratio=ratio, mismatch=mismatch), new, old)
        cut = total = 0.0
        for n, o, length, advantage, weight, part in zip(
            answers(new), answers(old), LENGTHS, ADVANTAGES, WEIGHTS, answers(gradient), strict=True
        ):
            logs = [a - b for a, b in zip(n, o, strict=True)]
            bounded = corrections_by_hand(logs, mismatch)
            # The ratio against the learner itself is one, never clipped; its gradient is that of log p.
            share = [sum(bounded) / length] * length if ratio == "sequence" else bounded
            assert part == pytest.approx([-weight * advantage * w for w in share])
            total -= weight * advantage * sum(bounded)
            free = [math.exp(sum(logs) if level == "sequence" else x) for x in logs]
            cut += weight * sum(not math.isclose(a, b) for a, b in zip(free, bounded, strict=True))
        assert terms["loss"].item() == pytest.approx(total)
        assert terms["sampling/corrected_ratio"].item() == pytest.approx(cut)
        plain, _, _ = loss_of(ObjectiveConfig(ratio=ratio), new, old)
        for name in ("sampling/importance_sampling_ratio/max", "sampling/drift_kl"):
            assert terms[name].item() == pytest.approx(plain[name].item())


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_against_the_learner_the_worker_says_nothing(ratio):
    config = ObjectiveConfig(ratio=ratio, old_policy="learner")
    for seed in range(10):
        (new, old), (own, other) = batch(seed), batch(seed + 100)
        for sampled in (old, other):
            later, _, count = loss_of(config, new, sampled, own=own)
            assert later["loss"].item() / count == pytest.approx(by_hand(config, new, own), rel=1e-9)
            first, gradient, _ = loss_of(config, new, sampled)
            assert first["loss"].item() / count == pytest.approx(by_hand(config, new, new), rel=1e-9)
            expected = [-w * a for w, a, n in zip(WEIGHTS, ADVANTAGES, LENGTHS, strict=True) for _ in range(n)]
            assert gradient == pytest.approx(expected)  # a ratio of one, whoever sampled


@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_in_a_later_update_the_ratio_is_the_learners_and_the_correction_the_workers(mode):
    config = ObjectiveConfig(mismatch=MismatchConfig(mode, cap=1.5))
    for seed in range(10):
        (new, old), (own, _) = batch(seed), batch(seed + 100)
        terms, _, _ = loss_of(config, new, old, own=own)
        total = 0.0
        for n, o, mine, advantage, weight in zip(
            answers(new), answers(old), answers(own), ADVANTAGES, WEIGHTS, strict=True
        ):
            bounded = corrections_by_hand([a - b for a, b in zip(mine, o, strict=True)], config.mismatch)
            ratios = [math.exp(a - b) for a, b in zip(n, mine, strict=True)]
            total -= weight * sum(w * clipped(r, advantage, config) for w, r in zip(bounded, ratios, strict=True))
        assert terms["loss"].item() == pytest.approx(total)


def test_without_a_mismatch_the_correction_changes_nothing():
    new, _ = batch(1)
    _, plain, _ = loss_of(ObjectiveConfig(), new, new)
    for mode in ("truncate", "mask"):
        _, corrected, _ = loss_of(ObjectiveConfig(mismatch=MismatchConfig(mode)), new, new)
        assert corrected == pytest.approx(plain)


@pytest.mark.parametrize("mode", ["off", "truncate", "mask"])
def test_a_banned_token_that_is_left_out_gives_no_nan(mode):
    leaf = torch.tensor([-1.0, -torch.inf], requires_grad=True)
    config = ObjectiveConfig(mismatch=MismatchConfig(mode))
    sampled, advantages, weights = torch.tensor([-1.0, -torch.inf]), torch.ones(2), torch.tensor([1.0, 0.0])
    loss, _ = objective_of("clip")(PolicyTokens(leaf, sampled, advantages, weights, torch.tensor([0, 1])), config)
    loss.backward()
    assert leaf.grad.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MismatchConfig("cut"), "mode is 'cut'; it must be one of off, truncate, mask"),
        (MismatchConfig("mask", "answer"), "level is 'answer'"),
        (MismatchConfig("mask", cap=0.5), "cap is 0.5; it must be at least 1"),
    ],
)
def test_a_bad_correction_names_its_key(config, words):
    with pytest.raises(ValueError, match=words):
        ObjectiveConfig(mismatch=config).check()


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimates_against_the_sum_over_a_vocabulary(estimator):
    rng = np.random.default_rng(0)
    p, q = (torch.tensor(rng.normal(0, 0.3, 50)).log_softmax(-1) for _ in range(2))
    drawn = torch.tensor(rng.choice(50, size=200_000, p=p.exp().numpy() / p.exp().sum().item()))
    weights = torch.full((len(drawn),), 1.0 / len(drawn), dtype=torch.float64)
    exact = (p.exp() * (p - q)).sum().item()
    assert kl_sum(p[drawn], q[drawn], weights, estimator).item() == pytest.approx(exact, rel=0.08)


def test_the_gradient_of_k2_is_the_kls_own():
    """In expectation over the policy's samples, E[d log p * grad log p] = grad KL."""
    rng = np.random.default_rng(1)
    logits = torch.tensor(rng.normal(0, 0.3, 20), requires_grad=True)
    reference = torch.tensor(rng.normal(0, 0.3, 20)).log_softmax(-1)
    p = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((p.exp() * (p - reference)).sum(), logits, retain_graph=True)
    every = torch.arange(20)  # the expectation, exactly: each token weighted by its probability
    (found,) = torch.autograd.grad(kl_sum(p[every], reference, p.detach().exp(), "k2"), logits)
    torch.testing.assert_close(found, exact)


def test_an_unknown_kl_estimator_is_refused():
    KlConfig(0.1, "k2").check()
    with pytest.raises(ValueError, match="grpo.kl.estimator is 'k4'; it must be one of k1, k2, k3"):
        KlConfig(0.1, "k4").check()
    with pytest.raises(ValueError, match="grpo.kl.coefficient is -0.1"):
        KlConfig(-0.1).check()


def test_a_banned_token_without_weight_is_no_nan():
    new = torch.tensor([-1.0, -math.inf], requires_grad=True)
    old, ones = torch.tensor([-1.0, -1.0]), torch.ones(2)
    weights = torch.tensor([1.0, 0.0])
    loss, sums = objective_of("clip")(PolicyTokens(new, old, ones, weights, torch.tensor([0, 1])), ObjectiveConfig())
    assert loss.item() == pytest.approx(-1.0)
    assert math.isfinite(sums["sampling/drift_kl"].item())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ObjectiveConfig(aggregation="mean"), "aggregation is 'mean'; it must be one of dapo, grpo, dr_grpo"),
        (ObjectiveConfig(name="ppo"), "name is 'ppo'"),
        (ObjectiveConfig(ratio="word"), "ratio is 'word'"),
        (ObjectiveConfig(clip_low=1.5), "clip_low 1.5"),
        (ObjectiveConfig(clip_high=-0.1), "clip_high -0.1"),
        (ObjectiveConfig(dual_clip=1.1), "must be above 1 \\+ clip_high"),
    ],
)
def test_settings_out_of_range_are_refused(config, message):
    ObjectiveConfig(dual_clip=3.0).check()
    with pytest.raises(ValueError, match=message):
        config.check()
