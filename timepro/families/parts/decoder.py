"""A Qwen2-style decoder computed where it is needed: the last layer at the answers' positions alone.

Every layer but the last must be run for the whole prompt, since later layers attend to it. The last one only has to
give keys and values there: its queries and feed-forward are needed at the few positions that predict an answer's
tokens. For a decoder of two layers that is over a third of all work; for one of 28 it is little, but costs nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from timepro.families.parts.tree import Tree, taken
from timepro.families.parts.tree_attention import use_trees


def answer_states(text_model: Any, inputs_embeds: Tensor, positions: Tensor, tree: Tree, queries: Tensor) -> Tensor:
    """Final hidden states at chosen positions; equal to the whole forward pass's there.

    Args:
        text_model: a Hugging Face Qwen2-style decoder (`layers`, `rotary_emb`, `norm`).
        inputs_embeds: (B, T, H).
        positions: what the decoder's rotary embedding takes, (B, T) or (3, B, T) for M-RoPE.
        tree: who sees whom. Where no row is branched that is causal attention, which has kernels of its own.
        queries: (B, Q) ascending positions in [0, T).

    Returns:
        (B, Q, H).
    """
    use_trees(text_model)
    rotary = text_model.rotary_emb(inputs_embeds, positions)
    hidden = inputs_embeds
    for layer in text_model.layers[:-1]:
        hidden = layer(hidden, attention_mask=tree if tree.branched else None, position_embeddings=rotary)
    last = text_model.layers[-1]
    normed = last.input_layernorm(hidden)
    chosen = taken(hidden, queries) + _attend(last.self_attn, normed, rotary, tree, queries)
    chosen = chosen + last.mlp(last.post_attention_layernorm(chosen))
    return text_model.norm(chosen)


def _attend(attention: Any, normed: Tensor, rotary: tuple[Tensor, Tensor], tree: Tree, queries: Tensor) -> Tensor:
    """The last layer's attention at the queries: (B, Q, H)."""
    cos, sin = rotary
    q = _heads(attention.q_proj(taken(normed, queries)), attention.head_dim)
    k = _heads(attention.k_proj(normed), attention.head_dim)
    v = _heads(attention.v_proj(normed), attention.head_dim)
    out = tree.attend(_rotate(q, taken(cos, queries), taken(sin, queries)), _rotate(k, cos, sin), v, queries)
    return attention.o_proj(out.transpose(1, 2).flatten(2))


def _heads(projected: Tensor, head_dim: int) -> Tensor:
    """(B, T, heads * D) to (B, heads, T, D)."""
    return projected.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864), halves paired as in the published Qwen2 code."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
