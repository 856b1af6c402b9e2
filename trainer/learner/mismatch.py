"""What to do where worker and learner disagree about the probability of what was sampled.

The two compute the same function by different code, in bfloat16 with differences that grow along an answer. Off, the
policy's ratio is taken against the worker's log-probabilities, as if those were the learner's own. Corrected, the ratio
is taken against the learner's log-probabilities at the start of the step, and the worker's share of the difference
becomes a constant weight w = p_learner / p_worker, bounded: truncated importance sampling (Yao et al. 2025, "Your
Efficient RL Framework Secretly Brings You Off-Policy RL Training"), or leaving out what lies too far off (masked).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.settings.mismatch import MismatchConfig


def mismatch_weights(log_ratio: Tensor, answer_of: Tensor, config: MismatchConfig) -> tuple[Tensor, Tensor]:
    """Constant weights of tokens whose worker and learner disagree.

    Args:
        log_ratio: (K,) log p_learner - log p_worker, without a gradient and finite.
        answer_of: (K,) number of the token's answer.

    Returns:
        (K,) weights and (K,) booleans where the bound changed them.
    """
    if config.level == "sequence":
        n = int(answer_of.max()) + 1 if answer_of.numel() else 0
        log_ratio = log_ratio.new_zeros(n).index_add(0, answer_of, log_ratio)[answer_of]
    weights = log_ratio.exp()
    if config.mode == "truncate":
        return weights.clamp(max=config.cap), weights > config.cap
    outside = (weights > config.cap) | (weights < 1.0 / config.cap)
    return torch.where(outside, torch.zeros_like(weights), weights), outside
