"""Losses as pure functions: tensors of answer tokens in, a sum in the numerator out; and what the sum is divided by.

Nothing is divided here by a local count: the caller divides by the divisor of the whole global batch, so that the
gradient does not depend on how the batch was cut into ranks and micro-batches. The policy gradient is in
`objectives.py`.

How answers of different lengths are weighed is a weight a token and one divisor (`token_weight`, `divisor`):

- `dapo`: every token of the batch counts the same (arXiv 2503.14476).
- `grpo`: every answer counts the same, a token of a long one less (arXiv 2402.03300).
- `dr_grpo`: every token counts the same, divided by a constant, so that neither an answer's own length nor the number
  of groups that teach changes its weight (arXiv 2503.20783).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def token_weight(n_tokens: int, weight: float, aggregation: str) -> float:
    """What one token of an answer of `n_tokens` counts, for an answer that counts `weight`."""
    return weight / n_tokens if aggregation == "grpo" else weight


def divisor(lengths: Sequence[int], token_weights: Sequence[float], aggregation: str, max_tokens: int) -> float:
    """These answers' part of the divisor; the parts of all ranks are added up.

    Args:
        lengths: tokens of every answer that the divisor counts. For `dr_grpo` these are all answers of the step.
        token_weights: of the same answers, from `token_weight`.
        max_tokens: the constant length of `dr_grpo`.
    """
    if aggregation == "dr_grpo":
        return float(len(lengths) * max_tokens)
    return float(sum(n * w for n, w in zip(lengths, token_weights, strict=True)))


def kl_sum(logprobs: Tensor, reference: Tensor, weights: Tensor, estimator: str) -> Tensor:
    """Weighted sum over tokens of an estimate of KL(trained || reference), from tokens that the policy sampled.

    J. Schulman's estimators, with d = log p - log p_reference: `k1` is d, unbiased, its own gradient zero on average;
    `k2` is d^2 / 2, whose gradient is that of the KL; `k3` is exp(-d) - 1 + d, unbiased and never negative.
    """
    d = logprobs - reference
    if estimator == "k1":
        return weighted_sum(d, weights)
    return weighted_sum(0.5 * d * d if estimator == "k2" else torch.exp(-d) - 1.0 + d, weights)


def cross_entropy_sum(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood of K tokens, as a sum."""
    return -weighted_sum(logprobs, weights)


def difference(logprobs: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    """`logprobs - others`, (K,); 0 for tokens that are left out."""
    return torch.where(weights != 0, logprobs - others, torch.zeros_like(logprobs))


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """The sum of weighted values (K,) as a scalar."""
    # A banned token has probability zero: minus infinity times a weight of zero would be NaN.
    return torch.where(weights != 0, values, torch.zeros_like(values)).mul(weights).sum()
