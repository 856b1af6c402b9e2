"""Fused norms and feed-forwards beside transformers' own. The kernels themselves run in `tests/gpu`."""

from __future__ import annotations

import pytest
import torch
from small_qwen2 import small_qwen2
from torch import Tensor

from timepro.families import family_of
from timepro.families.parts import fused
from timepro.families.parts.compiled import compiled


class OnCard(Tensor):
    """A tensor on the CPU that says it lies on a card, so that the branch for cards runs here."""

    is_cuda = True


@pytest.fixture
def model():
    return small_qwen2()


@pytest.mark.parametrize("on_card", [False, True])
def test_norm_and_feed_forward_are_transformers(model, on_card, monkeypatch):
    """In float32, where no intermediate rounding differs."""
    monkeypatch.setattr(fused, "compiled", lambda function: function)
    layer = model.layers[0]
    torch.nn.init.normal_(layer.input_layernorm.weight)
    hidden = torch.randn(2, 5, 64)
    expected = layer.input_layernorm(hidden), layer.mlp(hidden)
    fused.fuse(model)
    given = hidden.as_subclass(OnCard) if on_card else hidden
    for found, wanted in zip((layer.input_layernorm(given), layer.mlp(given)), expected, strict=True):
        torch.testing.assert_close(found.as_subclass(Tensor), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["tiny_checkpoint", "tiny_qwen2_audio"])
def test_every_norm_and_feed_forward_of_a_family_is_fused(family, request):
    folder = request.getfixturevalue(family)
    model = family_of(folder).text_model(family_of(folder).load(folder, torch.float32))
    fused.fuse(model)
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if "forward" in vars(module)}
    assert names == {"input_layernorm", "post_attention_layernorm", "norm", "mlp"}


@pytest.mark.parametrize(
    ("message", "calls"),
    [("Global num_threads state changed while dynamo tracing, please report a bug", 2), ("another", 1)],
)
def test_a_changed_number_of_threads_is_tried_again_and_nothing_else_is(message, calls, monkeypatch):
    tried = []

    def made(value: int) -> int:
        tried.append(value)
        if len(tried) == 1:
            raise AssertionError(message)
        return value + 1

    monkeypatch.setattr(torch, "compile", lambda function, **settings: made)
    call = compiled.__wrapped__(lambda value: value)
    if calls == 2:
        assert call(3) == 4
    else:
        with pytest.raises(AssertionError, match=message):
            call(3)
    assert tried == [3] * calls
