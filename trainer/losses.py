"""Losses as pure functions: tensors of answer tokens in, a sum in the numerator out.

Nothing is divided here by a local count: the caller divides by the number of tokens of the whole global batch, so
that the gradient does not depend on how the batch was cut into ranks and micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyTerms:
    """Sums over K answer tokens; `loss` has a gradient, the rest is for the log."""

    loss: Tensor
    ratio_sum: Tensor
    ratio_max: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    drift_sum: Tensor  # k3 estimate of KL(sampled from || trained now)


def policy_terms(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, weights: Tensor, clip_low: float, clip_high: float
) -> PolicyTerms:
    """The clipped policy-gradient objective (PPO, arXiv 1707.06347; asymmetric range as in DAPO, arXiv 2503.14476).

    Args:
        logprobs: (K,) of the tokens under the weights being trained.
        sampled_logprobs: (K,) as returned with the answer.
        advantages: (K,) the answer's advantage at each of its tokens.
        weights: (K,) 0 leaves a token out.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
    """
    log_ratio = logprobs - sampled_logprobs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = -(torch.minimum(ratio * advantages, clipped * advantages) * weights).sum()
    with torch.no_grad():
        low = ((ratio < 1.0 - clip_low) & (advantages < 0)) * weights
        high = ((ratio > 1.0 + clip_high) & (advantages > 0)) * weights
        drift = (torch.exp(-log_ratio) - 1.0 + log_ratio) * weights
        used = ratio[weights > 0]
        return PolicyTerms(
            loss=loss,
            ratio_sum=(ratio * weights).sum(),
            ratio_max=used.max() if used.numel() else ratio.new_zeros(()),
            clipped_low=low.sum(),
            clipped_high=high.sum(),
            drift_sum=drift.sum(),
        )


def cross_entropy_sum(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood of K tokens, as a sum."""
    return -(logprobs * weights).sum()
