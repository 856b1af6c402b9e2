"""Timestamp embeddings: how they start. They are frozen in all training (`trainer.policy` keeps the rows bit-equal).

- `semantic`: the paper's choice, the mean of the subword embeddings of the number's string. It needs a pretrained
  vocabulary in which digits mean something.
- `random`: the paper's ablation.
- `smooth`: neighbours in time are neighbours in the embedding space. For models trained from scratch: a new
  vocabulary has no number semantics to inherit, and with this start a tiny model learns to tell times in minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from timepro.timestamps import TimestampVocabulary

ROW_MULTIPLE = 64  # vLLM pads the vocabulary to multiples of this
INITIALISATIONS = ("semantic", "random", "smooth")

# `smooth`: sinusoids from about twice the usual range down to a few audio frames; a random part keeps tokens apart.
_LONGEST_PERIOD_S = 60.0
_SHORTEST_PERIOD_S = 0.16
_RANDOM_SHARE = 0.6
_SINUSOID_SHARE = 0.8


def initial_timestamps(
    embeddings: Tensor, tokenizer: Any, vocabulary: TimestampVocabulary, how: str, generator: torch.Generator
) -> Tensor:
    """Starting rows for all timestamps.

    Args:
        embeddings: (V, H) embeddings of the ordinary tokens (the semantic means and the scale come from them).
        tokenizer: maps a number's string to token ids.
        how: one of `INITIALISATIONS`.
        generator: source of the random parts.

    Returns:
        (vocabulary.size, H), in the order of the times.

    Raises:
        ValueError: an unknown initialisation.
    """
    if how not in INITIALISATIONS:
        raise ValueError(f"model.timestamp_init is {how!r}; it must be one of {', '.join(INITIALISATIONS)}")
    if how == "semantic":
        return semantic_means(subwords_of(tokenizer, vocabulary), lambda ids: embeddings[torch.tensor(ids)])
    scale = embeddings.float().std().item()
    width = embeddings.shape[1]
    noise = torch.randn(vocabulary.size, width, generator=generator) * scale
    if how == "random":
        return noise.to(embeddings.dtype)
    times = torch.tensor([vocabulary.seconds(i) for i in range(vocabulary.size)])[:, None]
    frequencies = torch.exp(
        torch.linspace(
            math.log(2 * math.pi / _LONGEST_PERIOD_S), math.log(2 * math.pi / _SHORTEST_PERIOD_S), width // 2
        )
    )[None]
    waves = torch.cat([(times * frequencies).sin(), (times * frequencies).cos()], dim=1) * math.sqrt(2.0)
    # A random rotation: attention heads cut the width into parts, and every part should see every period.
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    return (_SINUSOID_SHARE * scale * (waves @ rotation) + _RANDOM_SHARE * noise).to(embeddings.dtype)


def padded_rows(n_tokens: int) -> int:
    """Rows of the embedding matrix for a tokenizer of `n_tokens`."""
    return -(-n_tokens // ROW_MULTIPLE) * ROW_MULTIPLE


def subwords_of(tokenizer: Any, vocabulary: TimestampVocabulary) -> list[list[int]]:
    """The subword ids of every timestamp's number string, in the order of the times."""
    return [
        list(tokenizer(vocabulary.number(index), add_special_tokens=False).input_ids)
        for index in range(vocabulary.size)
    ]


def semantic_means(subwords: Sequence[Sequence[int]], rows_of: Callable[[list[int]], Tensor]) -> Tensor:
    """The paper's initialisation: each timestamp starts as the mean of its number string's subword embeddings.

    Args:
        subwords: ids from `subwords_of`.
        rows_of: sorted ids to their embeddings (n, H); asked once, so that a checkpoint need not be read whole.

    Returns:
        (len(subwords), H).
    """
    needed = sorted({i for ids in subwords for i in ids})
    rows = rows_of(needed)
    place = {i: k for k, i in enumerate(needed)}
    means = [rows[torch.tensor([place[i] for i in ids])].float().mean(0) for ids in subwords]
    return torch.stack(means).to(rows.dtype)
