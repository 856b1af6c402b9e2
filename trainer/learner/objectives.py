"""Policy-gradient objectives: what the tokens of sampled answers are worth, as a sum with a gradient and sums by name.

An objective is a function of the tokens and the settings, `(PolicyTokens, ObjectiveConfig) -> (loss, sums)`:

- `loss`: the weighted sum over tokens that is minimised, not divided by any count. The caller divides it by the divisor
  of the whole global batch, so that the gradient does not depend on how the batch was cut.
- `sums`: what the step reports beside it, weighted sums over tokens by the name that they are logged under (the same
  names in every call); the caller makes means of them. A name that ends in `/max` is reported as the largest.

`grpo.objective.name` names one of those here, or one of your own by import path, `module:function`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from timepro.plugins import import_object
from trainer.learner.losses import difference, weighted_sum
from trainer.learner.mismatch import mismatch_weights
from trainer.settings.objective import ObjectiveConfig


@dataclass(frozen=True)
class PolicyTokens:
    """K tokens of sampled answers.

    Args:
        logprobs: (K,) under the weights being trained, with a gradient.
        sampled_logprobs: (K,) as returned with the answer.
        advantages: (K,) the answer's advantage at each of its tokens.
        weights: (K,) 0 leaves a token out.
        answer_of: (K,) number of the token's answer; only what goes by sequence asks for it.
        own_logprobs: (K,) as the learner's weights gave them before the step's first update, where the ratio is taken
            against those; None in that very update, whose log-probabilities they are.
    """

    logprobs: Tensor
    sampled_logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    answer_of: Tensor
    own_logprobs: Tensor | None = None


Objective = Callable[[PolicyTokens, ObjectiveConfig], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Ratios:
    """The importance ratio that an objective clips, and what is known of the difference between worker and learner.

    Args:
        ratio: (K,) with a gradient; by token, or the same for all tokens of an answer.
        correction, corrected: (K,) constant weights for the mismatch, and where its bound changed them.
        log_ratio: (K,) log p trained - log p sampled, whatever is corrected.
    """

    ratio: Tensor
    correction: Tensor
    corrected: Tensor
    log_ratio: Tensor


def ratios_of(tokens: PolicyTokens, config: ObjectiveConfig) -> Ratios:
    """Importance ratios by token or by sequence (the geometric mean of an answer's tokens, GSPO, arXiv 2507.18071)."""
    # A token that is left out can be a banned one: minus infinity, whose difference from itself is NaN.
    log_ratio = difference(tokens.logprobs, tokens.sampled_logprobs, tokens.weights)
    correction, corrected = torch.ones_like(log_ratio), torch.zeros_like(log_ratio, dtype=torch.bool)
    clipped = log_ratio
    if config.against_learner:
        own = tokens.logprobs.detach() if tokens.own_logprobs is None else tokens.own_logprobs
        clipped = difference(tokens.logprobs, own, tokens.weights)
        if config.mismatch.mode != "off":
            apart = difference(own, tokens.sampled_logprobs, tokens.weights)
            correction, corrected = mismatch_weights(apart, tokens.answer_of, config.mismatch)
    by_answer = config.ratio == "sequence"
    ratio = (_answer_means(clipped, tokens.answer_of) if by_answer else clipped).exp()
    return Ratios(ratio, correction, corrected, log_ratio)


def clip(tokens: PolicyTokens, config: ObjectiveConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped objective (PPO, arXiv 1707.06347), with an upper bound of its own (arXiv 2503.14476) and, where asked
    for, a second one for negative advantages (dual clip, arXiv 1912.09729)."""
    found, advantages = ratios_of(tokens, config), tokens.advantages
    ratio, low, high = found.ratio, 1.0 - config.clip_low, 1.0 + config.clip_high
    gain = torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    if config.dual_clip:
        gain = torch.where(advantages < 0, torch.maximum(gain, config.dual_clip * advantages), gain)
    too_low, too_high = (ratio < low) & (advantages < 0), (ratio > high) & (advantages > 0)
    return -weighted_sum(gain * found.correction, tokens.weights), _sums(tokens, config, found, too_low, too_high)


def cispo(tokens: PolicyTokens, config: ObjectiveConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped ratio as a constant weight of log p (CISPO, arXiv 2506.13585): no token loses its gradient."""
    found = ratios_of(tokens, config)
    high = 1.0 + config.clip_high
    gain = found.ratio.detach().clamp(max=high) * tokens.advantages * tokens.logprobs
    too_low, too_high = torch.zeros_like(found.ratio, dtype=torch.bool), found.ratio > high
    return -weighted_sum(gain * found.correction, tokens.weights), _sums(tokens, config, found, too_low, too_high)


OBJECTIVES: dict[str, Objective] = {"clip": clip, "cispo": cispo}


def objective_of(name: str) -> Objective:
    """The objective of a name, or of an import path `module:function`.

    Raises:
        ValueError: there is none.
    """
    return OBJECTIVES[name] if name in OBJECTIVES else import_object(name, "objective", "grpo.objective.name")


@torch.no_grad()
def _sums(
    tokens: PolicyTokens, config: ObjectiveConfig, found: Ratios, too_low: Tensor, too_high: Tensor
) -> dict[str, Tensor]:
    """What both objectives report; ratio and drift are those between trained and sampled, whatever is corrected."""
    ratio, weights = found.ratio, tokens.weights
    if config.against_learner:
        by_answer = config.ratio == "sequence"
        ratio = (_answer_means(found.log_ratio, tokens.answer_of) if by_answer else found.log_ratio).exp()
    used = ratio[weights > 0]
    drift = torch.exp(-found.log_ratio) - 1.0 + found.log_ratio  # k3 estimate of KL(sampled from || trained now)
    return {
        "sampling/importance_sampling_ratio/mean": weighted_sum(ratio, weights),
        "sampling/importance_sampling_ratio/max": used.max() if used.numel() else ratio.new_zeros(()),
        "clip_ratio/low_mean": weighted_sum(too_low.float(), weights),
        "clip_ratio/high_mean": weighted_sum(too_high.float(), weights),
        "sampling/drift_kl": weighted_sum(drift, weights),
        "sampling/corrected_ratio": weighted_sum(found.corrected.float(), weights),
    }


def _answer_means(values: Tensor, answer_of: Tensor) -> Tensor:
    """Each token's answer's mean, (K,)."""
    n = int(answer_of.max()) + 1 if answer_of.numel() else 0
    sums = values.new_zeros(n).index_add(0, answer_of, values)
    counts = values.new_zeros(n).index_add(0, answer_of, torch.ones_like(values))
    return (sums / counts)[answer_of]
