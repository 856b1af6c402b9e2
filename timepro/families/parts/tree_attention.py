"""Tree attention in a Hugging Face decoder: which kind serves, and how the decoder's layers come to it."""

from __future__ import annotations

import functools
import math
from typing import Any

from torch import Tensor

from timepro.families.parts.tree import Tree
from timepro.families.parts.tree_segments import SegmentTree

NAME = "timepro_tree"
"""The attention's name in transformers' registry."""


def tree_of(segments: Tensor, branched: bool = True) -> Tree:
    """The tree of a micro-batch's segments (B, N) for the device that they lie on."""
    if not segments.is_cuda:
        return SegmentTree(segments, branched)
    from timepro.families.parts.tree_blocks import BlockTree

    return BlockTree(segments, branched)


def use_trees(text_model: Any) -> None:
    """Let a decoder's layers take a `Tree` for their `attention_mask`; other masks mean what they meant."""
    _register()
    if text_model.config._attn_implementation != NAME:
        text_model.config._attn_implementation = NAME


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, tree_attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def tree_attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tree | Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function (see its `AttentionInterface`).

    Args:
        query: (B, heads, N, D).
        key, value: (B, key heads, N, D).

    Returns:
        (B, N, heads, D), and no weights.

    Raises:
        ValueError: the checkpoint's configuration asks for attention dropout.
    """
    if not isinstance(attention_mask, Tree):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
    if dropout:
        raise ValueError(
            f"the checkpoint's text configuration has attention_dropout {dropout}, which the learner's attention over "
            "shared prompts does not do; set it to 0 in config.json (published checkpoints have 0)"
        )
    usual = 1 / math.sqrt(query.shape[-1])
    if scaling is not None and not math.isclose(scaling, usual):
        query = query * (scaling / usual)
    return attention_mask.attend(query, key, value).transpose(1, 2), None
