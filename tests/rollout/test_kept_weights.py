"""A layer whose weights stay, with a stand-in for the kernel that vLLM takes on a processor with AMX."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("vllm")

import rollout.kept_weights as kept_weights  # noqa: E402


def as_on_amx(layer: nn.Module, remove_weight: bool) -> None:
    """Makes the bias float32, and takes no other, as vLLM's packed product of small matrices does."""
    assert not remove_weight
    packed = layer.weight.data.clone()
    if layer.bias is not None:
        layer.bias.data = layer.bias.to(torch.float32)

    def product(x, weight, bias):
        assert bias is None or bias.dtype == torch.float32
        return torch.nn.functional.linear(x.float(), packed.float(), bias).to(x.dtype)

    layer.cpu_linear = product


@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_stays_as_a_stream_brings_it_where_the_product_wants_it_wider(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_weights, "dispatch_cpu_unquantized_gemm", as_on_amx)
    layer = nn.Linear(4, 3, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    method = kept_weights.KeptLinearMethod.__new__(kept_weights.KeptLinearMethod)
    place = layer.bias.data_ptr() if bias else 0
    x = torch.randn(2, 4, dtype=torch.bfloat16)
    for _ in range(2):  # packed once more after a change, as a delta does
        method.process_weights_after_loading(layer)
        expected = as_linear(x, layer)
        assert torch.equal(layer.cpu_linear(x, layer.weight, layer.bias), expected)
        if bias:
            assert layer.bias.dtype == torch.bfloat16 and layer.bias.data_ptr() == place
            layer.bias.data[0] += 1.0  # written where it lies, and seen at the next product
            assert torch.equal(layer.cpu_linear(x, layer.weight, layer.bias), as_linear(x, layer))
        layer.weight.data[0, 0] += 1.0


def as_linear(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    bias = None if layer.bias is None else layer.bias.float()
    return torch.nn.functional.linear(x.float(), layer.weight.float(), bias).to(x.dtype)
