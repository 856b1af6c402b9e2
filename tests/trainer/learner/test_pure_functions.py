"""Advantages, losses and schedules against their formulas."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch

from trainer.learner.advantages import decoupled_advantages, group_advantages, has_spread, squared_deviations
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.objectives import PolicyTokens, clip
from trainer.learner.schedule import learning_rate_factor
from trainer.settings.objective import ObjectiveConfig

GROUPS = [np.array([1.0, 0.0, 0.5, 0.25]), np.array([0.2, 0.2]), np.array([0.9, 0.1, 0.2])]


def test_group_scale_is_grpos_formula():
    found = group_advantages(GROUPS, "group", epsilon=1e-3)
    for rewards, advantages in zip(GROUPS, found, strict=True):
        mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
        np.testing.assert_allclose(advantages, [(r - mean) / (deviation + 1e-3) for r in rewards], atol=1e-12)


def test_no_scale_only_subtracts_the_mean():
    for rewards, advantages in zip(GROUPS, group_advantages(GROUPS, "none"), strict=True):
        np.testing.assert_allclose(advantages, [r - statistics.fmean(rewards) for r in rewards], atol=1e-12)


def test_batch_scale_is_the_root_mean_square_deviation_of_all_groups():
    deviations = [r - statistics.fmean(group) for group in GROUPS for r in group]
    scale = math.sqrt(math.fsum(d * d for d in deviations) / len(deviations))
    flat = np.concatenate(group_advantages(GROUPS, "batch", epsilon=0.01))
    np.testing.assert_allclose(flat, np.array(deviations) / (scale + 0.01), atol=1e-12)


def test_batch_scale_is_the_same_when_ranks_add_their_sums():
    whole = group_advantages(GROUPS, "batch")
    (a, n), (b, m) = squared_deviations(GROUPS[:1]), squared_deviations(GROUPS[1:])
    scale = math.sqrt((a + b) / (n + m))
    parts = [group_advantages(part, "batch", batch_std=scale) for part in (GROUPS[:1], GROUPS[1:])]
    for one, other in zip(whole, [*parts[0], *parts[1]], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_group_without_spread_has_no_advantage(scale):
    for flat in (np.full(4, 0.25), np.zeros(3)):
        (advantages,) = group_advantages([flat], scale)
        assert np.array_equal(advantages, np.zeros(len(flat)))


def test_spread():
    assert has_spread(np.array([0.0, 0.0, 0.01]))
    assert not has_spread(np.full(8, 0.1))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_an_answer_without_a_reward_has_left_its_group(scale):
    gap = math.nan
    groups = [np.array([1.0, gap, 0.5, 0.25]), np.array([gap, 0.2, 0.9]), np.array([gap, gap]), np.array([gap, 0.7])]
    without = [group[~np.isnan(group)] for group in groups]
    expected = group_advantages([group for group in without if len(group)], scale, epsilon=1e-3)
    found = group_advantages(groups, scale, epsilon=1e-3)
    for group, advantages in zip(groups, found, strict=True):
        assert (advantages[np.isnan(group)] == 0).all()
    rest = [advantages[~np.isnan(group)] for group, advantages in zip(groups, found, strict=True)]
    for one, other in zip([values for values in rest if len(values)], expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    assert squared_deviations(groups) == pytest.approx(squared_deviations([g for g in without if len(g)]))
    assert [has_spread(group) for group in groups] == [True, True, False, False]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_leave_one_out_compares_with_the_other_answers(scale):
    groups = [GROUPS[0], np.array([0.5, math.nan, 0.1, 0.9])]
    plain = group_advantages(groups, "none", "leave_one_out")
    for rewards, advantages in zip(groups, plain, strict=True):
        for i, reward in enumerate(rewards):
            others = [r for k, r in enumerate(rewards) if k != i and not math.isnan(r)]
            expected = 0.0 if math.isnan(reward) else reward - statistics.fmean(others)
            assert advantages[i] == pytest.approx(expected, abs=1e-12)
    scaled, usual = (group_advantages(groups, scale, baseline) for baseline in ("leave_one_out", "mean"))
    for a, b, n in zip(scaled, usual, (4, 3), strict=True):
        np.testing.assert_allclose(a, b * n / (n - 1), atol=1e-12)


def test_decoupled_advantages_normalise_each_reward_in_its_group_before_they_are_added():
    # GDPO's formulas by hand: A_k = (r_k - mean) / (std + e), A = sum of w_k A_k, divided by its root mean square.
    coarse = [np.array([1.0, 0.0, 0.0]), np.array([0.4, 0.4])]
    fine = [np.array([0.50, 0.52, 0.51]), np.array([0.1, 0.2])]
    weights = {"coarse": 1.0, "fine": 0.5}
    summed = []
    for a, b in zip(coarse, fine, strict=True):
        for r, s in zip(a, b, strict=True):
            one = (r - statistics.fmean(a)) / (statistics.pstdev(a) + 1e-6)
            summed.append(one + 0.5 * (s - statistics.fmean(b)) / (statistics.pstdev(b) + 1e-6))
    size = math.sqrt(statistics.fmean(x * x for x in summed)) + 1e-6
    groups = [{"coarse": a, "fine": b} for a, b in zip(coarse, fine, strict=True)]
    found = decoupled_advantages(groups, weights, "group", epsilon=1e-6)
    np.testing.assert_allclose(np.concatenate(found), [x / size for x in summed], atol=1e-9)
    assert found[1][1] > 0 > found[1][0]  # the second group differs in the fine reward alone


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_decoupled_advantages_of_one_reward_point_where_the_rewards_do(scale):
    whole = group_advantages(GROUPS, scale, epsilon=1e-9)
    found = decoupled_advantages([{"only": group} for group in GROUPS], {"only": 1.0}, scale, epsilon=1e-9)
    factor = np.linalg.norm(np.concatenate(found)) / np.linalg.norm(np.concatenate(whole))
    np.testing.assert_allclose(np.concatenate(found), factor * np.concatenate(whole), atol=1e-12)


def test_decoupled_advantages_are_the_same_when_ranks_add_their_sums():
    groups = [{"a": group, "b": group[::-1] ** 2} for group in GROUPS]
    weights = {"a": 1.0, "b": 2.0}
    whole = decoupled_advantages(groups, weights, "batch")
    sums: list[float] = []
    decoupled_advantages(groups, weights, "batch", total=lambda value: sums.append(value) or value)
    answers = iter(sums)  # what all ranks together would say, in the order in which it is asked
    parts = decoupled_advantages(groups[:1], weights, "batch", total=lambda value: next(answers))
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-12)


def test_a_reward_that_a_group_does_not_have_gives_it_nothing():
    groups = [{"a": GROUPS[0]}, {"b": np.array([1.0, math.nan, 0.0])}]
    found = decoupled_advantages(groups, {"a": 1.0, "b": 1.0}, "none")
    np.testing.assert_allclose(found[0], GROUPS[0] - GROUPS[0].mean())
    np.testing.assert_allclose(found[1], [0.5, 0.0, -0.5])


def test_an_answer_alone_has_no_advantage():
    assert group_advantages([np.array([0.7, math.nan])], "none", "leave_one_out")[0].tolist() == [0.0, 0.0]


def test_an_unknown_baseline_lists_the_known_ones():
    with pytest.raises(ValueError, match="grpo.advantage.baseline is 'median'; it must be one of mean, leave_one_out"):
        group_advantages(GROUPS, "group", "median")


def test_an_unknown_scale_lists_the_known_ones():
    with pytest.raises(ValueError, match="grpo.advantage.scale is 'std'; it must be one of group, batch, none"):
        group_advantages(GROUPS, "std")


def terms(new, old, advantages, weights, low=0.2, high=0.3):
    new = torch.tensor(new, requires_grad=True)
    given = (torch.tensor(values) for values in (old, advantages, weights))
    config = ObjectiveConfig(clip_low=low, clip_high=high)
    loss, sums = clip(PolicyTokens(new, *given, torch.zeros(len(new), dtype=torch.long)), config)
    (gradient,) = torch.autograd.grad(loss, new)
    return {"loss": loss, **sums}, gradient


def test_the_clipped_objective_against_the_formulas_token_by_token():
    generator = np.random.default_rng(0)
    new, old = generator.uniform(-3, 0, 50).tolist(), generator.uniform(-3, 0, 50).tolist()
    advantages, weights = generator.normal(size=50).tolist(), generator.choice([0.0, 0.5, 1.0], 50).tolist()
    found, _ = terms(new, old, advantages, weights)
    loss = ratio_sum = low = high = drift = largest = 0.0
    for n, o, a, w in zip(new, old, advantages, weights, strict=True):
        ratio = math.exp(n - o)
        loss -= w * min(ratio * a, min(max(ratio, 0.8), 1.3) * a)
        ratio_sum += w * ratio
        low += w if ratio < 0.8 and a < 0 else 0.0
        high += w if ratio > 1.3 and a > 0 else 0.0
        drift += w * (1.0 / ratio - 1.0 - math.log(1.0 / ratio))
        largest = max(largest, ratio) if w > 0 else largest
    expected = {
        "loss": loss,
        "sampling/importance_sampling_ratio/mean": ratio_sum,
        "sampling/importance_sampling_ratio/max": largest,
        "clip_ratio/low_mean": low,
        "clip_ratio/high_mean": high,
        "sampling/drift_kl": drift,
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-4), name
    assert low > 0 and high > 0


def test_at_ratio_one_the_gradient_is_reinforce():
    old, advantages, weights = [-0.5, -2.0, -1.0, -0.1], [1.5, -0.7, 0.0, 2.0], [1.0, 0.5, 1.0, 0.0]
    _, gradient = terms(old, old, advantages, weights)
    # Of -sum w A log pi: each token's gradient is -w A.
    torch.testing.assert_close(gradient, torch.tensor([-1.5, 0.35, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.35, 1.0, False),  # already more likely than the range allows
        (1.25, 1.0, True),
        (1.35, -1.0, True),  # wrong direction: must be pushed back from any distance
        (0.75, -1.0, False),
        (0.85, -1.0, True),
        (0.75, 1.0, True),
        (5.0, 1.0, False),
        (0.1, -1.0, False),
    ],
)
def test_clipped_tokens_have_no_gradient_and_the_others_ratio_times_advantage(ratio, advantage, moves):
    _, gradient = terms([math.log(ratio) - 1.0], [-1.0], [advantage], [1.0])
    assert gradient.item() == pytest.approx(-ratio * advantage if moves else 0.0, rel=1e-5, abs=0.0)


def test_only_the_loss_has_a_gradient_and_no_used_token_is_no_error():
    found, _ = terms([-1.0, -2.0], [-1.5, -1.0], [1.0, 1.0], [0.0, 0.0])
    assert found["sampling/importance_sampling_ratio/max"].item() == 0.0
    assert [name for name, value in found.items() if value.requires_grad] == ["loss"]
    assert found["loss"].item() == 0.0


def test_drift_is_not_negative_and_zero_only_without_change():
    found, _ = terms([-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [1.0, 1.0])
    assert found["sampling/drift_kl"].item() == 0.0
    for shift in (-0.5, 0.5):
        assert terms([-1.0 + shift], [-1.0], [1.0], [1.0])[0]["sampling/drift_kl"].item() > 0.05


def test_cross_entropy_against_torch():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    targets, weights = torch.tensor([0, 6, 3, 3, 1]), torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5])
    logprobs = logits.log_softmax(-1)[range(5), targets]
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(cross_entropy_sum(logprobs, weights), (each * weights).sum())


def test_warm_up_is_linear_and_ends_at_the_peak():
    factors = [learning_rate_factor(step, 0.0, 4, flat=1.0, floor=0.0) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate_factor(0, 0.0, 0, flat=1.0, floor=0.0) == 1.0


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 1.0), (0.2, 1.0), (0.6, 0.55), (0.4, 0.1 + 0.9 * 0.5 * (1 + 0.5**0.5)), (1.0, 0.1)]
)
def test_cosine_from_flat_to_floor(progress, expected):
    assert learning_rate_factor(100, progress, 4, flat=0.2, floor=0.1) == pytest.approx(expected)


def test_progress_beyond_the_end_stays_at_the_floor_and_constant_stays_at_the_peak():
    assert learning_rate_factor(100, 1.2, 0, flat=0.2, floor=0.1) == pytest.approx(0.1)
    assert learning_rate_factor(100, 1.0, 0, flat=1.0, floor=0.1) == 1.0


def test_warm_up_and_decay_multiply_when_time_runs_faster_than_steps():
    assert learning_rate_factor(0, 0.6, 2, flat=0.2, floor=0.1) == pytest.approx(0.5 * 0.55)
