"""The decoder whose last layer is computed at the answers alone, against the whole forward pass."""

from __future__ import annotations

import pytest
import torch
from small_qwen2 import small_qwen2

from timepro.families.parts.decoder import answer_states
from timepro.families.parts.tree import PROMPT, DenseTree, tree_mask
from timepro.families.parts.tree_segments import SegmentTree

LENGTH = 12


@pytest.fixture(scope="module")
def model():
    return small_qwen2()


SEGMENTS = {"causal": [PROMPT] * LENGTH, "tree": [PROMPT] * 4 + [0] * 4 + [1] * 4}


def segments(kind: str) -> torch.Tensor:
    return torch.tensor([SEGMENTS[kind]] * 2)


@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.parametrize("made", [DenseTree, SegmentTree])
def test_states_and_gradients_are_those_of_the_whole_forward_pass(model, made, kind):
    inputs = torch.randn(2, LENGTH, 64, generator=torch.Generator().manual_seed(1))
    queries = torch.tensor([[3, 4, 8, 11], [0, 5, 9, 10]])
    positions = torch.arange(LENGTH).expand(2, -1)
    ours, whole = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    branched = kind == "tree"
    found = answer_states(model, ours, positions, made(segments(kind), branched), queries)
    mask = tree_mask(segments(kind))[:, None] if branched else None
    everywhere = model(inputs_embeds=whole, position_ids=positions, attention_mask=mask).last_hidden_state
    expected = everywhere.gather(1, queries[..., None].expand(-1, -1, 64))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, whole.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.parametrize("made", [DenseTree, SegmentTree])
def test_no_layer_asks_for_grouped_heads_under_a_mask(model, made, kind, monkeypatch):
    """CUDA serves that combination by scores in memory only, as no kernel but the plain one takes it."""
    asked = []
    real = torch.nn.functional.scaled_dot_product_attention

    def record(query, key, value, attn_mask=None, **settings):
        asked.append((query.shape[1], key.shape[1], value.shape[1], attn_mask is not None, settings))
        return real(query, key, value, attn_mask=attn_mask, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    queries = torch.tensor([[3, 11], [3, 11]])
    tree = made(segments(kind), kind == "tree")
    answer_states(model, torch.randn(2, LENGTH, 64), torch.arange(LENGTH).expand(2, -1), tree, queries)
    assert len(asked) >= 2
    for query_heads, key_heads, value_heads, masked, settings in asked:
        assert not (masked and settings.get("enable_gqa"))
        assert settings.get("enable_gqa") or query_heads == key_heads == value_heads
