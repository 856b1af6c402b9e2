"""How much of training's change reaches the workers, which may keep fewer digits than the learner.

Where the learner trains all weights in bfloat16, it sends what it computes with itself (ZeRO-3 keeps the float32 ones
beside): all of it arrives. Where it trains in float32 and the workers compute in bfloat16, a small change of a weight
that came from a bfloat16 checkpoint is rounded away. Of adapters the workers keep nearly float32's digits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from timepro import low_rank

_SAMPLED = 4096  # numbers of a tensor that are looked at


class Arrival:
    """Compares, on rank 0, what a worker has of a sample of the trained numbers with what the learner has.

    Args:
        adapters: whether adapters are sent, which the workers keep in two parts.
    """

    def __init__(self, adapters: bool) -> None:
        self._adapters = adapters
        self._start: dict[int, Tensor] = {}
        self._now: dict[int, Tensor] = {}

    def look(self, number: int, tensor: Tensor) -> None:
        """Take a sample of the tensor that is sent as the stream's `number`-th."""
        flat = tensor.detach().flatten()
        # A copy: a view would keep the whole bucket.
        sample = flat[:: max(1, math.ceil(flat.numel() / _SAMPLED))].to("cpu", torch.float32, copy=True)
        self._start.setdefault(number, sample)
        self._now[number] = sample

    def share(self, dtype: torch.dtype) -> float | None:
        """The part of the change since the first stream that workers of this type have, by projection.

        Returns:
            about 1 where all of it arrives; None where nothing has changed yet.
        """
        arrived = whole = 0.0
        for number, start in self._start.items():
            now = self._now[number]
            change = (now - start).double()
            arrived += float(((self._kept(now, dtype) - self._kept(start, dtype)).double() * change).sum())
            whole += float(change.square().sum())
        return arrived / whole if whole > 0 else None

    def _kept(self, sample: Tensor, dtype: torch.dtype) -> Tensor:
        return low_rank.kept(sample, dtype) if self._adapters else sample.to(dtype).float()


def require_arrival(share: float | None, least: float, learner: torch.dtype, worker: torch.dtype) -> None:
    """Refuse to go on training a model that the workers do not follow.

    Raises:
        ValueError: naming the keys that decide it.
    """
    if share is None or share >= least:
        return
    names = [str(dtype).removeprefix("torch.") for dtype in (learner, worker)]
    raise ValueError(
        f"only {share:.1%} of what training has changed reaches the workers (sync.min_arrived={least:g}): the learner "
        f"sends {names[0]} (zero.dtype), the workers keep {names[1]} (rollout.dtype), which rounds small changes away. "
        "Set both alike, or train adapters (lora.rank), or raise grpo.optimiser.learning_rate"
    )
