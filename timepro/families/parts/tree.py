"""Who sees whom where answers share a prompt, and attention under it.

A row is `[prompt | answer 1 | ... | answer G | padding]`: every answer sees the prompt and itself, causally. Each
token's segment says where it belongs. `Tree` is what a decoder layer gets in place of a mask; its kinds compute the
same attention and differ in what they need: `DenseTree` (the reference) a boolean for every pair of tokens,
`SegmentTree` and `BlockTree` memory that grows with the number of tokens. `tree_attention.tree_of` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

PROMPT, PADDING = -1, -2  # segment numbers; answers count from 0


class Tree(ABC):
    """Rows of a micro-batch as the decoder's attention needs them.

    Args:
        segments: (B, N): `PROMPT`, the number of an answer, or `PADDING`; each a run of consecutive tokens, the prompt
            first and padding last.
        branched: whether any row has several answers; plain causal attention is the tree's where none has.
    """

    def __init__(self, segments: Tensor, branched: bool = True) -> None:
        self.segments, self.branched = segments, branched

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, queries: Tensor | None = None) -> Tensor:
        """Attention, scaled by one over the root of D.

        Args:
            q: (B, heads, Q, D).
            k, v: (B, key heads, N, D); each key head serves `heads / key heads` query heads in a row.
            queries: (B, Q) ascending positions of the queries in [0, N); None where Q is N.

        Returns:
            (B, heads, Q, D); a padding token sees itself alone.
        """

    @cached_property
    def mask(self) -> Tensor:
        """(B, N, N) booleans: true where a query (first) may see a key."""
        return tree_mask(self.segments)


class DenseTree(Tree):
    """The reference: every pair of tokens has its boolean."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, queries: Tensor | None = None) -> Tensor:
        visible = self.mask if queries is None else taken(self.mask, queries)
        groups = q.shape[1] // k.shape[1]
        # Grouped heads under a mask are served by no CUDA kernel but the one that keeps all scores in memory.
        return F.scaled_dot_product_attention(q, repeated(k, groups), repeated(v, groups), attn_mask=visible[:, None])


def tree_mask(segments: Tensor) -> Tensor:
    """Which token sees which: (B, N) segments to a boolean (B, N, N), causal within prompt and own answer.

    A padding token sees itself alone, which keeps its softmax finite.
    """
    n = segments.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril()
    queries, keys = segments[:, :, None], segments[:, None, :]
    visible = causal & ((keys == PROMPT) | (keys == queries)) & (keys != PADDING) & (queries != PADDING)
    return visible | torch.eye(n, dtype=torch.bool, device=segments.device)


def taken(values: Tensor, queries: Tensor) -> Tensor:
    """(B, T, X) at (B, Q) positions: (B, Q, X)."""
    return values.gather(1, queries[..., None].expand(-1, -1, values.shape[-1]))


def repeated(heads: Tensor, groups: int) -> Tensor:
    """(B, heads, T, D) to (B, heads * groups, T, D), each head `groups` times in a row."""
    return heads[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2)
