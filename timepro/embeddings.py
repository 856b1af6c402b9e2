"""Timestamp embeddings: how they start. They are frozen in all training (the learner keeps the rows bit-equal).

- `semantic`: the paper's choice, the mean of the subword embeddings of the number's string. It needs a pretrained
  vocabulary in which digits mean something. A mean forgets the order of the digits: <1.24> and <4.12> start equal and,
  frozen, stay equal. Of the paper's 750 embeddings 386 are distinct.
- `semantic_ordered`: this project's variant, in which a digit weighs by its place, so that all of them are distinct.
- `random`: the paper's ablation.
- `smooth`: neighbours in time are neighbours in the embedding space. For models trained from scratch: a new
  vocabulary has no number semantics to inherit, and with this start a tiny model learns to tell times in minutes.

In a factorised vocabulary a token starts from its own part of the number, "12" or ".48".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from timepro.timestamps import INITIALISATIONS, TimestampVocabulary, TokenKind

ROW_MULTIPLE = 64  # vLLM pads the vocabulary to multiples of this

# `semantic_ordered`: a subword's weight over that of its right neighbour. With any ratio of two whole numbers (but 1)
# two different sets of places never weigh the same, so two numbers of equal length cannot collide. Near 1.5
# the closest two of the paper's 750 times are the farthest apart: a tenth of a row's length, for unrelated digits.
_PLACE_RATIO = 1.5

# `smooth`: sinusoids from twice the range (at least twice the usual one) down to a few audio frames (at least four
# steps: shorter ones would not join neighbours); a random part keeps tokens apart.
_LONGEST_PERIOD_S = 60.0
_SHORTEST_PERIOD_S = 0.16
_SHORTEST_PERIOD_STEPS = 4
_RANDOM_SHARE = 0.6
_SINUSOID_SHARE = 0.8

_ROUNDING = 1e-3  # of a row's length: what float32 sums and bfloat16 rows leave between equal means is far below it
RowsOf = Callable[[list[int]], Tensor]


def initial_timestamps(
    embeddings: Tensor, tokenizer: Any, vocabulary: TimestampVocabulary, how: str, generator: torch.Generator
) -> Tensor:
    """Starting rows for all timestamp tokens.

    Args:
        embeddings: (V, H) embeddings of the ordinary tokens (the semantic means and the scale come from them).
        tokenizer: maps a number's string to token ids.
        how: one of `INITIALISATIONS`.
        generator: source of the random parts.

    Returns:
        (vocabulary.size, H), in the tokens' order.

    Raises:
        ValueError: an unknown initialisation.
    """
    if how not in INITIALISATIONS:
        raise ValueError(f"model.tiny.timestamp_init is {how!r}; it must be one of {', '.join(INITIALISATIONS)}")
    if how in SEMANTIC:
        return SEMANTIC[how](subwords_of(tokenizer, vocabulary, how), lambda ids: embeddings[torch.tensor(ids)])
    scale = embeddings.float().std().item()
    width = embeddings.shape[1]
    noise = torch.randn(vocabulary.size, width, generator=generator) * scale
    if how == "random":
        return noise.to(embeddings.dtype)
    waves = torch.cat([_waves(kind, width) for kind in vocabulary.kinds])
    # A random rotation: attention heads cut the width into parts, and every part should see every period.
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    return (_SINUSOID_SHARE * scale * (waves @ rotation) + _RANDOM_SHARE * noise).to(embeddings.dtype)


def _waves(kind: TokenKind, width: int) -> Tensor:
    """(n, width): sines and cosines of what each of n tokens says, in seconds."""
    times = torch.tensor([float(number) for number in kind.numbers])[:, None]
    longest = max(_LONGEST_PERIOD_S, 2 * len(kind.numbers) * kind.step)
    shortest = max(_SHORTEST_PERIOD_S, _SHORTEST_PERIOD_STEPS * kind.step)
    frequencies = torch.linspace(math.log(2 * math.pi / longest), math.log(2 * math.pi / shortest), width // 2).exp()
    angles = times * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1) * math.sqrt(2.0)


def padded_rows(n_tokens: int) -> int:
    """Rows of the embedding matrix for a tokenizer of `n_tokens`."""
    return -(-n_tokens // ROW_MULTIPLE) * ROW_MULTIPLE


def subwords_of(tokenizer: Any, vocabulary: TimestampVocabulary, how: str) -> list[list[int]]:
    """The subword ids of what every timestamp token says, in the tokens' order.

    For `semantic_ordered` whole numbers get zeros before them: in "1" and "11" all weight lies on the same subword,
    and only numbers with as many digits are sure to differ.
    """
    numbers = []
    for kind in vocabulary.kinds:
        digits = max(map(len, kind.numbers)) if how == "semantic_ordered" and kind.numbers[0].isdigit() else 0
        numbers += [number.zfill(digits) for number in kind.numbers]
    return [list(tokenizer(number, add_special_tokens=False).input_ids) for number in numbers]


def semantic_means(subwords: Sequence[Sequence[int]], rows_of: RowsOf) -> Tensor:
    """The paper's initialisation: each timestamp token starts as the mean of its number string's subword embeddings.

    Args:
        subwords: ids from `subwords_of`.
        rows_of: sorted ids to their embeddings (n, H); asked once, so that a checkpoint need not be read whole.

    Returns:
        (len(subwords), H).
    """
    pieces, dtype = _pieces(subwords, rows_of)
    return torch.stack([piece.mean(0) for piece in pieces]).to(dtype)


def semantic_ordered(subwords: Sequence[Sequence[int]], rows_of: RowsOf) -> Tensor:
    """Means in which a subword weighs more the farther left it stands; arguments and result as `semantic_means`.

    Every row has the length of the plain mean: the two initialisations differ in direction alone.
    """
    pieces, dtype = _pieces(subwords, rows_of)
    lengths = torch.stack([piece.mean(0).norm() for piece in pieces])
    weights = [_PLACE_RATIO ** torch.arange(len(piece) - 1, -1, -1) for piece in pieces]
    sums = torch.stack([weight @ piece for weight, piece in zip(weights, pieces, strict=True)])
    return (torch.nn.functional.normalize(sums, dim=1) * lengths[:, None]).to(dtype)


SEMANTIC = {"semantic": semantic_means, "semantic_ordered": semantic_ordered}


def _pieces(subwords: Sequence[Sequence[int]], rows_of: RowsOf) -> tuple[list[Tensor], torch.dtype]:
    """For each number its subwords' embeddings (n, H) in float32, and the type that they are stored in."""
    needed = sorted({i for ids in subwords for i in ids})
    rows = rows_of(needed)
    place = {i: k for k, i in enumerate(needed)}
    return [rows[torch.tensor([place[i] for i in ids])].float() for ids in subwords], rows.dtype


def count_distinct(rows: Tensor) -> int:
    """How many of the rows (n, H) differ from all before them by more than rounding."""
    rows = rows.float()
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    same = distances <= _ROUNDING * rows.norm(dim=1).mean()
    return int((~same.tril(-1).any(1)).sum())
