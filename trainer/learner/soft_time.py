"""A distance-aware target for timestamp tokens: a time that is nearly right is not as wrong as any other.

Cross-entropy on one token says nothing of how far off the others are. Here a share of the target's mass lies on the
neighbouring times, as a Gaussian in seconds (TEMPO, arXiv 2608.29999: weight 0.5, sigma 0.3 s). Of a factorised time,
whole second and fraction have a Gaussian each, over the tokens of their kind: times of the next second have no share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from timepro.astp import AstpLayout
from trainer.settings.soft_time import SoftTimeConfig


@dataclass(frozen=True)
class SoftTime:
    """The target for one checkpoint's timestamps.

    Args:
        weight: the share of the mass that is spread.
        sigma: of the Gaussian, in seconds.
        kinds: of each kind of timestamp token the first id, the number, and the seconds between neighbours.
    """

    weight: float
    sigma: float
    kinds: tuple[tuple[int, int, float], ...]

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
        kinds, first = [], layout.first_token_id
        for kind in layout.vocabulary.kinds:
            kinds.append((first, len(kind.numbers), kind.step))
            first += len(kind.numbers)
        return cls(config.weight, config.sigma, tuple(kinds))

    def expected(self, logprobs: Tensor, targets: Tensor) -> Tensor:
        """The log-probability of each target, averaged over its spread where it is a time.

        Args:
            logprobs: (K, V), normalised.
            targets: (K,).

        Returns:
            (K,): `(1 - weight) log p(target) + weight sum_j q_j log p(j)`, with q a Gaussian around the target over all
            timestamp tokens of its kind; plainly `log p(target)` for other tokens.
        """
        expected = picked = logprobs.gather(-1, targets[:, None])[:, 0]
        for first, size, step in self.kinds:
            index = (targets - first).clamp(0, size - 1)
            distance = (torch.arange(size, device=targets.device)[None] - index[:, None]) * step
            q = torch.softmax(-(distance**2) / (2 * self.sigma**2), dim=-1)
            spread = (q * logprobs[:, first : first + size]).sum(-1)
            is_time = (targets >= first) & (targets < first + size)
            expected = torch.where(is_time, (1 - self.weight) * picked + self.weight * spread, expected)
        return expected
