"""The distance-aware target against its formula."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from timepro.astp import AstpLayout
from trainer.learner.soft_time import SoftTime
from trainer.settings.soft_time import SoftTimeConfig

LAYOUT = AstpLayout(first_token_id=10, stride=0.5, duration=5.0, answer_style="timestamps")


def logprobs(k, seed=0):
    return torch.randn(k, 25, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1)


def test_a_time_is_scored_over_its_neighbours_by_the_formula():
    soft = SoftTime.of(SoftTimeConfig(weight=0.4, sigma=0.7), LAYOUT)
    values, targets = logprobs(4), torch.tensor([10, 13, 19, 16])
    for found, row, target in zip(soft.expected(values, targets), values, targets.tolist(), strict=True):
        density = [math.exp(-((0.5 * (j - (target - 10))) ** 2) / (2 * 0.7**2)) for j in range(10)]
        spread = sum(d / sum(density) * row[10 + j].item() for j, d in enumerate(density))
        assert found.item() == pytest.approx(0.6 * row[target].item() + 0.4 * spread, abs=1e-6)


def test_second_and_fraction_are_scored_over_tokens_of_their_kind():
    """Ids 10 to 14 are whole seconds, 15 and 16 the fractions .0 and .5."""
    soft = SoftTime.of(SoftTimeConfig(weight=0.4, sigma=0.7), replace(LAYOUT, style="factorised"))
    values, targets = logprobs(4), torch.tensor([10, 13, 15, 17])
    kinds = {10: (10, 5, 1.0), 13: (10, 5, 1.0), 15: (15, 2, 0.5)}
    for found, row, target in zip(soft.expected(values, targets), values, targets.tolist(), strict=True):
        expected = row[target].item()
        if target in kinds:
            first, size, step = kinds[target]
            density = [math.exp(-((step * (first + j - target)) ** 2) / (2 * 0.7**2)) for j in range(size)]
            spread = sum(d / sum(density) * row[first + j].item() for j, d in enumerate(density))
            expected = 0.6 * expected + 0.4 * spread
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_other_tokens_are_scored_plainly():
    soft = SoftTime.of(SoftTimeConfig(weight=0.4), LAYOUT)
    values, targets = logprobs(4), torch.tensor([0, 9, 20, 24])
    torch.testing.assert_close(soft.expected(values, targets), values.gather(-1, targets[:, None])[:, 0])


def test_a_narrow_gaussian_is_plain_cross_entropy():
    soft = SoftTime.of(SoftTimeConfig(weight=1.0, sigma=1e-3), LAYOUT)
    values, targets = logprobs(3), torch.tensor([10, 12, 19])
    torch.testing.assert_close(soft.expected(values, targets), values.gather(-1, targets[:, None])[:, 0])


def test_a_nearly_right_time_costs_less_than_a_far_one():
    soft = SoftTime.of(SoftTimeConfig(weight=0.5, sigma=0.5), LAYOUT)
    near, far = (torch.full((1, 25), -10.0).index_fill(-1, torch.tensor([i]), 0.0).log_softmax(-1) for i in (14, 18))
    target = torch.tensor([13])
    assert soft.expected(near, target) > soft.expected(far, target)


def test_no_weight_is_no_target():
    assert SoftTime.of(SoftTimeConfig(), AstpLayout(enabled=False)) is None


@pytest.mark.parametrize(
    ("config", "layout", "message"),
    [
        (SoftTimeConfig(weight=1.5), LAYOUT, "weight must be in"),
        (SoftTimeConfig(weight=0.5, sigma=0.0), LAYOUT, "sigma above 0"),
        (SoftTimeConfig(weight=0.5), AstpLayout(first_token_id=1, answer_style="digits"), "this one writes digits"),
    ],
)
def test_what_does_not_fit_is_refused(config, layout, message):
    with pytest.raises(ValueError, match=message):
        SoftTime.of(config, layout)
