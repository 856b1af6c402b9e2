"""Tree attention segment by segment, for CPUs: nothing has a value for every pair of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from timepro.families.parts.tree import PADDING, PROMPT, Tree, repeated

_GROUP = (
    128  # keys of short answers that share a call: a call of its own for each of ten tokens costs more than it saves
)


@dataclass(frozen=True)
class _Part:
    """Queries and keys of one row that belong together: the prompt's, those of a few answers, or padding.

    Args:
        n_queries, n_keys: how many consecutive ones.
        mask: boolean (n_queries, P + n_keys), or (n_queries, P) for the prompt's own; None where plain causal
            attention is meant.
        at: (n_queries,) the queries' places among the part's own keys; of padding alone.
    """

    n_queries: int
    n_keys: int
    mask: Tensor | None = None
    at: Tensor | None = None


class SegmentTree(Tree):
    """The prompt once, causally; then each answer with the prompt and itself, a few short answers in one call.

    The largest mask has (an answer's tokens) x (prompt and answer) booleans.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, queries: Tensor | None = None) -> Tensor:
        rows = self._everywhere if queries is None else self._plan(queries)
        groups = q.shape[1] // k.shape[1]
        k, v = repeated(k, groups), repeated(v, groups)
        # Cut by `unbind` and `split`, whose backward pass puts all pieces together at once: a slice's would make a
        # tensor of the whole size for each piece.
        cut = zip(rows, q.unbind(), k.unbind(), v.unbind(), strict=True)
        return torch.stack([_attend_row(*row) for row in cut])

    @cached_property
    def _everywhere(self) -> list[list[_Part]]:
        return self._plan(None)

    def _plan(self, queries: Tensor | None) -> list[list[_Part]]:
        n = self.segments.shape[1]
        everywhere = torch.arange(n)
        return [
            _parts(self.segments[b], everywhere if queries is None else queries[b]) for b in range(len(self.segments))
        ]


def _attend_row(parts: list[_Part], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One row's attention: (heads, Q, D) from (heads, Q, D) and (heads, N, D)."""
    q_parts = q.split([part.n_queries for part in parts], dim=1)
    k_parts, v_parts = (x.split([part.n_keys for part in parts], dim=1) for x in (k, v))
    found = []
    for number, (part, own) in enumerate(zip(parts, q_parts, strict=True)):
        if part.at is not None:
            found.append(v_parts[number].index_select(1, part.at))  # padding sees itself alone
        elif part.n_queries == 0:
            found.append(own)
        else:
            keys, values = k_parts[0], v_parts[0]
            if number > 0:
                keys, values = torch.cat((keys, k_parts[number]), 1), torch.cat((values, v_parts[number]), 1)
            out = F.scaled_dot_product_attention(
                own[None], keys[None], values[None], attn_mask=part.mask, is_causal=part.mask is None
            )
            found.append(out[0])
    return torch.cat(found, dim=1)


def _parts(segments: Tensor, queries: Tensor) -> list[_Part]:
    """A row's parts in order, the prompt first: they take all N keys and all Q queries.

    Args:
        segments: (N,).
        queries: (Q,) ascending positions.
    """
    sizes = _sizes(segments.tolist())
    of_queries = segments[queries]
    counted = _counts(of_queries.tolist())
    parts, start, begun = [], 0, 0
    for members, n_keys in sizes:
        n_queries = sum(counted.get(member, 0) for member in members)
        mine = queries[begun : begun + n_queries]
        keys = torch.arange(start, start + n_keys)
        if members == [PADDING]:
            parts.append(_Part(n_queries, n_keys, at=mine - start))
        elif members == [PROMPT]:
            causal = n_queries == n_keys  # all of them: no position comes twice in a prompt
            parts.append(_Part(n_queries, n_keys, None if causal else keys <= mine[:, None]))
        else:
            own = (segments[keys] == of_queries[begun : begun + n_queries, None]) & (keys <= mine[:, None])
            prompt = torch.ones(n_queries, sizes[0][1], dtype=torch.bool)
            parts.append(_Part(n_queries, n_keys, torch.cat((prompt, own), dim=1)))
        start, begun = start + n_keys, begun + n_queries
    return parts


def _sizes(segments: list[int]) -> list[tuple[list[int], int]]:
    """Which segments form a part, and its number of keys: the prompt (also where there is none), answers, padding."""
    sizes: list[tuple[list[int], int]] = [([PROMPT], 0)]
    for segment, run in groupby(segments):
        length = len(list(run))
        members, total = sizes[-1]
        if segment == PROMPT:
            sizes[0] = ([PROMPT], length)
        elif segment != PADDING and members != [PROMPT] and total + length <= _GROUP:
            sizes[-1] = ([*members, segment], total + length)
        else:
            sizes.append(([segment], length))
    return sizes


def _counts(segments: list[int]) -> dict[int, int]:
    return {segment: len(list(run)) for segment, run in groupby(segments)}
