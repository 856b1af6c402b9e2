"""Adapters of RL's size in bfloat16: they arrive in a layer's output, and float32 is plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from timepro import low_rank

RANK, SCALE = 8, 4.0


def layer(seed: int = 0, inputs: int = 768, outputs: int = 512, rows: int = 512):
    """x (N, I), W (O, I) and a bias (O,) as large as a key's in Qwen2, all bfloat16; A and B float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight, bias = normal(rows, inputs), normal(outputs, inputs) * 0.03, normal(outputs) * 10
    a = (torch.rand(RANK, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
    return x.bfloat16(), weight.bfloat16(), bias.bfloat16(), a, normal(outputs, RANK).sign()


def outputs(x, weight, bias, a, b):
    down, up = low_rank.split(a, x.dtype), low_rank.beside(SCALE * b, x.dtype)
    return low_rank.add_linear(low_rank.widen(low_rank.narrow(x, down), up), x, weight, bias)


@pytest.fixture(params=["as on a CPU", "as on a card"], autouse=True)
def way(request, monkeypatch):
    """Both ways to compute the products; torch's own bfloat16 ones round once on a CPU, too, only slowly."""
    if request.param == "as on a card":
        monkeypatch.setattr(low_rank, "_slow", lambda x: False)


def share(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The part of an exact change that is found, by projection."""
    return float((found.double() * exact.double()).sum() / exact.double().square().sum())


def exact_outputs(x, weight, bias, a, b):
    x = x.double()
    return x @ weight.double().t() + SCALE * (x @ a.double().t()) @ b.double().t() + bias.double()


@pytest.mark.parametrize("size", [1.2e-5, 1.7e-4], ids=["random walk", "one direction"])
@pytest.mark.parametrize("biased", [False, True])
def test_what_255_steps_at_1e6_do_to_a_fresh_adapter_arrives_in_bfloat16(size, biased):
    x, weight, bias, a, signs = layer()
    bias = bias if biased else torch.zeros_like(bias)
    before, after = outputs(x, weight, bias, a, signs * 0), outputs(x, weight, bias, a, signs * size)
    change = exact_outputs(x, weight, bias, a, signs * size) - exact_outputs(x, weight, bias, a, signs * 0)
    # A change far below the outputs' last digit: it arrives as a few outputs that move by a whole one.
    assert share(after.double() - before.double(), change) == pytest.approx(1.0, abs=0.12)
    if size < 1e-4 and not biased:
        added = (before.float() + change.float()).bfloat16()  # as adapters are added elsewhere: after the rounding
        assert share(added.double() - before.double(), change) < 0.1


@pytest.mark.parametrize("moved", ["a", "b"])
def test_rl_on_a_fine_tuned_adapter_arrives_in_bfloat16(moved):
    """Fine-tuning has made A and B so large that bfloat16 has no digits for RL's steps: both keep float32's."""
    x, weight, bias, a, signs = layer()
    generator = torch.Generator().manual_seed(1)
    b = torch.randn(signs.shape, generator=generator) * 1e-2
    step = 1.2e-5 * torch.randn((a if moved == "a" else b).shape, generator=generator).sign()
    other = (a + step, b) if moved == "a" else (a, b + step)
    kept = low_rank.kept((a if moved == "a" else b) + step, torch.bfloat16) - (a if moved == "a" else b)
    assert share(kept, step) == pytest.approx(1.0, abs=0.05)
    change = exact_outputs(x, weight, bias, *other) - exact_outputs(x, weight, bias, a, b)
    without_bias = torch.zeros_like(bias)
    found = outputs(x, weight, without_bias, *other).double() - outputs(x, weight, without_bias, a, b).double()
    assert share(found, change) == pytest.approx(1.0, abs=0.3)


def test_float32_is_plain_arithmetic():
    x, weight, bias, a, signs = (tensor.float() for tensor in layer())
    found = outputs(x, weight, bias, a, signs * 1e-2)
    torch.testing.assert_close(found.double(), exact_outputs(x, weight, bias, a, signs * 1e-2), rtol=0, atol=2e-5)


def test_a_result_may_take_the_place_of_what_is_added():
    x, weight, bias, a, signs = layer()
    added = low_rank.widen(low_rank.narrow(x, low_rank.split(a, x.dtype)), low_rank.beside(signs * 1e-2, x.dtype))
    expected = low_rank.add_linear(added, x, weight, bias)
    assert torch.equal(low_rank.add_linear(added, x, weight, bias, overwrite=True), expected)


def test_a_split_matrix_has_the_digits_of_both_parts():
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(low_rank.kept(matrix, torch.float32), matrix)
    error = (low_rank.kept(matrix, torch.bfloat16) - matrix).abs() / matrix.abs()
    assert error.max() < 2.0**-16
    assert (matrix.bfloat16().float() - matrix).abs().div(matrix.abs()).max() > 2.0**-10
