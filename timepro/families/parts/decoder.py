"""A Qwen2-style decoder computed where it is needed: the last layer at the answers' positions alone.

Every layer but the last must be run for the whole prompt, since later layers attend to it. The last one only has to
give keys and values there: its queries and feed-forward are needed at the few positions that predict an answer's
tokens. For a decoder of two layers that is over a third of all work; for one of 28 it is little, but costs nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def answer_states(
    text_model: Any, inputs_embeds: Tensor, positions: Tensor, mask: Tensor | None, queries: Tensor
) -> Tensor:
    """Final hidden states at chosen positions; equal to the whole forward pass's there.

    Args:
        text_model: a Hugging Face Qwen2-style decoder (`layers`, `rotary_emb`, `norm`).
        inputs_embeds: (B, T, H).
        positions: what the decoder's rotary embedding takes, (B, T) or (3, B, T) for M-RoPE.
        mask: boolean (B, T, T), true where a query may see a key; None for causal attention, whose kernels skip what
            no query sees.
        queries: (B, Q) positions in [0, T).

    Returns:
        (B, Q, H).
    """
    rotary = text_model.rotary_emb(inputs_embeds, positions)
    hidden = inputs_embeds
    everywhere = mask[:, None] if mask is not None else None
    for layer in text_model.layers[:-1]:
        hidden = layer(hidden, attention_mask=everywhere, position_embeddings=rotary)
    last = text_model.layers[-1]
    normed = last.input_layernorm(hidden)
    keys = torch.arange(inputs_embeds.shape[1], device=queries.device)
    visible = _rows(mask, queries) if mask is not None else keys <= queries[..., None]
    attended = _attend(last.self_attn, normed, rotary, visible, queries)
    chosen = _rows(hidden, queries) + attended
    chosen = chosen + last.mlp(last.post_attention_layernorm(chosen))
    return text_model.norm(chosen)


def _attend(attention: Any, normed: Tensor, rotary: tuple[Tensor, Tensor], visible: Tensor, queries: Tensor) -> Tensor:
    """The last layer's attention at the queries.

    Keys and values are repeated to one a query head, as transformers does it under a mask. With grouped heads AND a
    mask, the CUDA kernels that need no scores in memory are ruled out, and (B, heads, Q, T) scores in float32 are
    gigabytes for clips of 30 s. That the memory-efficient kernel is then taken has not been seen on a card: the test
    shows what is asked of torch.

    Args:
        visible: boolean (B, Q, T).
    """
    cos, sin = rotary
    q = _heads(attention.q_proj(_rows(normed, queries)), attention.head_dim)
    k = _heads(attention.k_proj(normed), attention.head_dim)
    v = _heads(attention.v_proj(normed), attention.head_dim)
    q = _rotate(q, _rows(cos, queries), _rows(sin, queries))
    groups = q.shape[1] // k.shape[1]
    k, v = _repeated(_rotate(k, cos, sin), groups), _repeated(v, groups)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None])
    return attention.o_proj(out.transpose(1, 2).flatten(2))


def _rows(values: Tensor, queries: Tensor) -> Tensor:
    """(B, T, X) to (B, Q, X)."""
    return values.gather(1, queries[..., None].expand(-1, -1, values.shape[-1]))


def _heads(projected: Tensor, head_dim: int) -> Tensor:
    """(B, T, heads * D) to (B, heads, T, D)."""
    return projected.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _repeated(heads: Tensor, groups: int) -> Tensor:
    """(B, heads, T, D) to (B, heads * groups, T, D), each head `groups` times in a row."""
    return heads[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864), halves paired as in the published Qwen2 code."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
