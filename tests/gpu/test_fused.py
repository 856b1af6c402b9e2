"""Fused norms and feed-forwards on the card: values and gradients against float64, and what they keep."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, Qwen2Model

from timepro.families.parts.fused import fuse

BOUND = 1e-2  # of the norm, in bfloat16


def layer_of(dtype: torch.dtype, fused: bool):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32, hidden_size=512, intermediate_size=2048, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = Qwen2Model(config)
    torch.nn.init.normal_(model.norm.weight)
    if fused:
        fuse(model)
    return model.bfloat16().to("cuda", dtype)


def passed(dtype: torch.dtype, fused: bool) -> tuple[list[torch.Tensor], int]:
    """Output, gradients of input, norm and projections; and bytes that the forward pass keeps."""
    model = layer_of(dtype, fused)
    hidden = torch.randn(3, 700, 512, generator=torch.Generator().manual_seed(1)).to("cuda", dtype).requires_grad_()
    gradient = torch.randn(3, 700, 512, generator=torch.Generator().manual_seed(2)).to("cuda", dtype)
    before = torch.cuda.memory_allocated()
    out = model.layers[0].mlp(model.norm(hidden))
    kept = torch.cuda.memory_allocated() - before
    out.backward(gradient)
    weights = (model.norm.weight, model.layers[0].mlp.gate_proj.weight, model.layers[0].mlp.down_proj.weight)
    return [out.detach(), hidden.grad, *(weight.grad for weight in weights)], kept


def test_values_gradients_and_what_is_kept(note) -> None:
    reference, _ = passed(torch.float64, fused=False)
    passed(torch.bfloat16, fused=True)  # compiles
    ours, kept = passed(torch.bfloat16, fused=True)
    theirs, kept_unfused = passed(torch.bfloat16, fused=False)
    errors = [
        [float((x.double() - y).norm() / y.norm()) for x, y in zip(found, reference, strict=True)]
        for found in (ours, theirs)
    ]
    note("relative errors, fused", errors[0])
    note("relative errors, transformers", errors[1])
    note("bytes kept, fused over transformers'", kept / kept_unfused)
    assert max(errors[0]) <= BOUND
    assert kept <= 0.75 * kept_unfused
