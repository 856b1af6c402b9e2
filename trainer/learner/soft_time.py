"""A distance-aware target for timestamp tokens: a time that is nearly right is not as wrong as any other.

Cross-entropy on one token says nothing of how far off the others are. Here a share of the target's mass lies on the
neighbouring times, as a Gaussian in seconds (TEMPO, arXiv 2608.29999: weight 0.5, sigma 0.3 s).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from timepro.astp import AstpLayout
from trainer.settings.soft_time import SoftTimeConfig


@dataclass(frozen=True)
class SoftTime:
    """The target for one checkpoint's timestamps: tokens `first` to `first + size - 1`, `stride` seconds apart."""

    weight: float
    sigma: float
    first: int
    size: int
    stride: float

    @classmethod
    def of(cls, config: SoftTimeConfig, layout: AstpLayout) -> SoftTime | None:
        """None where the weight is 0.

        Raises:
            ValueError: settings out of range, or a checkpoint that does not answer in timestamp tokens.
        """
        if config.weight == 0:
            return None
        if not 0 < config.weight <= 1 or config.sigma <= 0:
            raise ValueError(
                f"sft.soft_time: weight {config.weight}, sigma {config.sigma}; weight must be in [0, 1], sigma above 0"
            )
        if not layout.enabled or layout.answer_style != "timestamps":
            raise ValueError(
                "sft.soft_time.weight is for checkpoints that answer in timestamp tokens, and this one writes "
                f"{layout.answer_style}; set it to 0, or make the checkpoint with answers in timestamps"
            )
        vocabulary = layout.vocabulary
        return cls(config.weight, config.sigma, layout.first_token_id, vocabulary.size, vocabulary.stride)

    def expected(self, logprobs: Tensor, targets: Tensor) -> Tensor:
        """The log-probability of each target, averaged over its spread where it is a time.

        Args:
            logprobs: (K, V), normalised.
            targets: (K,).

        Returns:
            (K,): `(1 - weight) log p(target) + weight sum_j q_j log p(j)`, with q a Gaussian around the target over all
            timestamps; plainly `log p(target)` for other tokens.
        """
        picked = logprobs.gather(-1, targets[:, None])[:, 0]
        index = (targets - self.first).clamp(0, self.size - 1)
        distance = (torch.arange(self.size, device=targets.device)[None] - index[:, None]) * self.stride
        q = torch.softmax(-(distance**2) / (2 * self.sigma**2), dim=-1)
        spread = (q * logprobs[:, self.first : self.first + self.size]).sum(-1)
        is_time = (targets >= self.first) & (targets < self.first + self.size)
        return torch.where(is_time, (1 - self.weight) * picked + self.weight * spread, picked)
