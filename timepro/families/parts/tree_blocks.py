"""Tree attention in blocks, for CUDA: flex attention (arXiv 2412.05496) visits the blocks in which any pair is visible.

A micro-batch is one sequence of all its rows' tokens, so that one compiled kernel serves every number of rows. What a
query sees are two runs of keys, its row's prompt and its own answer up to itself: four numbers a query say all, and
the table of blocks follows from their extremes over a block of queries. A table has one entry for 128 x 128 pairs:
25 kB at 10,000 tokens, where the booleans of all pairs are 100 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from timepro.families.parts.compiled import compiled
from timepro.families.parts.tree import PADDING, PROMPT, Tree

BLOCK = 128


@dataclass(frozen=True)
class Seen:
    """What each of some queries sees, as places in the flattened micro-batch: two runs of keys.

    Args:
        row, shared: (K,) the first run, from `row` to before `shared`: the row's prompt; empty for its own tokens.
        own, last: (K,) the second run, from `own` to `last`: the query's segment up to itself.
    """

    row: Tensor
    shared: Tensor
    own: Tensor
    last: Tensor

    def mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Whether a query sees a key, as flex attention asks."""
        row, shared, own, last = self.row, self.shared, self.own, self.last

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            in_prompt = (key >= row[query]) & (key < shared[query])
            return in_prompt | ((key >= own[query]) & (key <= last[query]))

        return visible

    def blocks(self, n_keys: int) -> tuple[Tensor, Tensor]:
        """Boolean (query blocks, key blocks): where some pair may be visible, and where every pair is."""
        first = torch.arange(0, n_keys, BLOCK, device=self.row.device)
        end = first + BLOCK - 1
        row, shared, own, last = (_extremes(x) for x in (self.row, self.shared, self.own, self.last))
        some = (row.least <= end) & (shared.most > first) | (own.least <= end) & (last.most >= first)
        whole = (row.most <= first) & (shared.least > end) | (own.most <= first) & (last.least >= end)
        return some, whole


@dataclass(frozen=True)
class _Extremes:
    least: Tensor
    most: Tensor


def _extremes(values: Tensor) -> _Extremes:
    """Least and greatest of each block of queries, (query blocks, 1). The last block is filled up with its last."""
    missing = -len(values) % BLOCK
    blocks = torch.cat((values, values[-1:].expand(missing))).view(-1, BLOCK)
    return _Extremes(blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True))


class BlockTree(Tree):
    """Flex attention; compiled on CUDA, and on a CPU, for tests of its logic, as plain tensor operations."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, queries: Tensor | None = None) -> Tensor:
        blocks = self._everywhere if queries is None else self._block_mask(queries)
        flex: Any = compiled(flex_attention) if q.is_cuda else flex_attention
        asked = q.shape[0] * q.shape[2]
        flat = _flat(q)
        if missing := blocks.seq_lengths[0] - asked:
            flat = F.pad(flat, (0, 0, 0, missing))
        options = {"FORCE_USE_FLEX_ATTENTION": True}  # one kernel for all lengths
        grouped = q.shape[1] != k.shape[1]
        found = flex(flat, _flat(k), _flat(v), block_mask=blocks, enable_gqa=grouped, kernel_options=options)
        found = found[:, :, :asked].transpose(1, 2)
        return found.reshape(q.shape[0], q.shape[2], q.shape[1], -1).transpose(1, 2)

    @cached_property
    def _everywhere(self) -> BlockMask:
        return self._block_mask(None)

    def seen(self, queries: Tensor | None) -> Seen:
        """What the queries see; (B, Q) positions, None for all."""
        segments = self.segments
        place = torch.arange(segments.numel(), device=segments.device, dtype=torch.int32).view_as(segments)
        row = place[:, :1].expand_as(place)
        prompt, padding = segments == PROMPT, segments == PADDING
        begins = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)
        own = torch.where(begins, place, 0).cummax(dim=1).values
        own = torch.where(padding, place, own)
        behind = (row + prompt.sum(1, keepdim=True)).to(torch.int32)
        shared = torch.where(prompt | padding, row, behind)
        runs = [row, shared, own, place]
        if queries is not None:
            runs = [run.gather(1, queries) for run in runs]
        flat = [run.flatten() for run in runs]
        # For fewer queries than a block has there would be another kernel, compiled anew: the last one is repeated.
        return Seen(*(torch.cat((x, x[-1:].expand(max(0, BLOCK - len(x))))) for x in flat))

    def _block_mask(self, queries: Tensor | None) -> BlockMask:
        seen, n_keys = self.seen(queries), self.segments.numel()
        some, whole = seen.blocks(n_keys)
        return BlockMask.from_kv_blocks(
            *_table(some & ~whole), *_table(whole),
            BLOCK_SIZE=BLOCK, mask_mod=seen.mask_mod(), seq_lengths=(len(seen.row), n_keys),
        )  # fmt: skip


def _table(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Boolean (query blocks, key blocks) as flex attention lists them: how many key blocks a query block, and which."""
    order = blocks.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]


def _flat(x: Tensor) -> Tensor:
    """(B, heads, T, D) to (1, heads, B * T, D)."""
    return x.transpose(1, 2).reshape(1, -1, x.shape[1], x.shape[3]).transpose(1, 2)
