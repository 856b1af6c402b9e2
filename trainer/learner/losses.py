"""Losses as pure functions: tensors of answer tokens in, a sum in the numerator out.

Nothing is divided here by a local count: the caller divides by the divisor of the whole global batch, so that the
gradient does not depend on how the batch was cut into ranks and micro-batches.

How answers of different lengths are weighed is a weight a token and one divisor (`token_weight`, `divisor`):

- `dapo`: every token of the batch counts the same (arXiv 2503.14476).
- `grpo`: every answer counts the same, a token of a long one less (arXiv 2402.03300).
- `dr_grpo`: every token counts the same, divided by a constant length, so that no answer's weight depends on its own
  length (arXiv 2503.20783).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.learner.mismatch import mismatch_weights
from trainer.settings.objective import ObjectiveConfig


@dataclass(frozen=True)
class PolicyTerms:
    """Sums over K answer tokens; `loss` has a gradient, the rest is for the log (weighted as the loss is).

    The ratio and the drift are those between trained and sampled, whatever is corrected.
    """

    loss: Tensor
    ratio_sum: Tensor
    ratio_max: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    drift_sum: Tensor  # k3 estimate of KL(sampled from || trained now)
    corrected: Tensor  # tokens whose weight the mismatch's bound changed


def token_weight(n_tokens: int, weight: float, aggregation: str) -> float:
    """What one token of an answer of `n_tokens` counts, for an answer that counts `weight`."""
    return weight / n_tokens if aggregation == "grpo" else weight


def divisor(lengths: Sequence[int], token_weights: Sequence[float], aggregation: str, max_tokens: int) -> float:
    """These answers' part of the divisor; the parts of all ranks are added up.

    Args:
        lengths, token_weights: of every answer in the loss, the weights from `token_weight`.
        max_tokens: the constant length of `dr_grpo`.
    """
    if aggregation == "dr_grpo":
        return float(sum(token_weights)) * max_tokens
    return float(sum(n * w for n, w in zip(lengths, token_weights, strict=True)))


def policy_terms(
    logprobs: Tensor,
    sampled_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    answer_of: Tensor,
    config: ObjectiveConfig,
    own_logprobs: Tensor | None = None,
) -> PolicyTerms:
    """The policy-gradient objective: clipped (PPO, arXiv 1707.06347) or CISPO, by token or by sequence.

    Args:
        logprobs: (K,) of the tokens under the weights being trained.
        sampled_logprobs: (K,) as returned with the answer.
        advantages: (K,) the answer's advantage at each of its tokens.
        weights: (K,) 0 leaves a token out.
        answer_of: (K,) number of the token's answer; only what goes by sequence asks for it.
        own_logprobs: (K,) as the learner's weights gave them before the step's first update, where the ratio is taken
            against those; None in that very update, whose log-probabilities they are.
    """
    # A token that is left out can be a banned one: minus infinity, whose difference from itself is NaN.
    log_ratio = _difference(logprobs, sampled_logprobs, weights)
    correction, corrected = torch.ones_like(log_ratio), torch.zeros_like(log_ratio, dtype=torch.bool)
    policy_log_ratio = log_ratio
    if config.against_learner:
        own = logprobs.detach() if own_logprobs is None else own_logprobs
        policy_log_ratio = _difference(logprobs, own, weights)
        if config.mismatch.mode != "off":
            apart = _difference(own, sampled_logprobs, weights)
            correction, corrected = mismatch_weights(apart, answer_of, config.mismatch)
    by_answer = config.ratio == "sequence"
    ratio = (_answer_means(policy_log_ratio, answer_of) if by_answer else policy_log_ratio).exp()
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    if config.name == "cispo":
        gain = ratio.detach().clamp(max=high) * advantages * logprobs
        too_low = torch.zeros_like(ratio, dtype=torch.bool)
        too_high = ratio > high
    else:
        gain = torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
        if config.dual_clip:
            gain = torch.where(advantages < 0, torch.maximum(gain, config.dual_clip * advantages), gain)
        too_low, too_high = (ratio < low) & (advantages < 0), (ratio > high) & (advantages > 0)
    loss = -_weighted(gain * correction, weights)
    with torch.no_grad():
        if config.against_learner:
            ratio = (_answer_means(log_ratio, answer_of) if by_answer else log_ratio).exp()
        drift = torch.exp(-log_ratio) - 1.0 + log_ratio
        used = ratio[weights > 0]
        return PolicyTerms(
            loss=loss,
            ratio_sum=_weighted(ratio, weights),
            ratio_max=used.max() if used.numel() else ratio.new_zeros(()),
            clipped_low=_weighted(too_low.float(), weights),
            clipped_high=_weighted(too_high.float(), weights),
            drift_sum=_weighted(drift, weights),
            corrected=_weighted(corrected.float(), weights),
        )


def kl_sum(logprobs: Tensor, reference: Tensor, weights: Tensor, estimator: str) -> Tensor:
    """Weighted sum over tokens of an estimate of KL(trained || reference), from tokens that the policy sampled.

    J. Schulman's estimators, with d = log p - log p_reference: `k1` is d, unbiased, its own gradient zero on average;
    `k2` is d^2 / 2, whose gradient is that of the KL; `k3` is exp(-d) - 1 + d, unbiased and never negative.
    """
    d = logprobs - reference
    if estimator == "k1":
        return _weighted(d, weights)
    return _weighted(0.5 * d * d if estimator == "k2" else torch.exp(-d) - 1.0 + d, weights)


def cross_entropy_sum(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood of K tokens, as a sum."""
    return -_weighted(logprobs, weights)


def _difference(logprobs: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    return torch.where(weights != 0, logprobs - others, torch.zeros_like(logprobs))


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    # A banned token has probability zero: minus infinity times a weight of zero would be NaN.
    return torch.where(weights != 0, values, torch.zeros_like(values)).mul(weights).sum()


def _answer_means(values: Tensor, answer_of: Tensor) -> Tensor:
    """Each token's answer's mean, (K,)."""
    n = int(answer_of.max()) + 1 if answer_of.numel() else 0
    sums = values.new_zeros(n).index_add(0, answer_of, values)
    counts = values.new_zeros(n).index_add(0, answer_of, torch.ones_like(values))
    return (sums / counts)[answer_of]
