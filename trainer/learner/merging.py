"""Adapters merged into a checkpoint's weights, without losing in bfloat16 what training has changed.

RL's change of a weight is a hundredth of the weight's last digit: rounded to the nearest, W + s B A is W again. Rounded
up or down at random, with the chance that makes the mean right, hardly a weight changes, but the sum over a row, which
is what a layer computes with, moves as it should. The price is noise: for RL's changes less than storing W in bfloat16
costs anyway, for large ones 1.4 times as much. Both are measured here.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.learner.lora import AdaptedLinear, Streamed

_KEPT_BITS = 16  # of a float32 number, in bfloat16


@dataclass
class MergeReport:
    """What merging kept.

    Args:
        share: of the change that is in the merged weights, by projection on it; over all layers.
        least: the least of a layer, and its name.
        noise: root mean square of what rounding has added, relative to the weights'.
    """

    share: float
    least: float
    least_name: str
    noise: float

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of the adapters' change is in the merged weights (least {self.least:.1%}, in "
            f"{self.least_name}), beside rounding noise of {self.noise:.2%} of the weights"
        )


@dataclass
class Narrowing:
    """Puts exact tensors into the type of a checkpoint, and measures what that costs."""

    _shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    _noise: float = 0.0
    _power: float = 0.0

    def __call__(self, name: str, exact: Tensor, start: Tensor) -> Tensor:
        """The tensor in the type of `start`, the one that training started from."""
        if exact.dtype == start.dtype:
            return exact
        if start.dtype == torch.bfloat16:
            found = rounded_at_random(exact.float(), zlib.crc32(name.encode()))
        else:
            found = exact.to(start.dtype)
        change, arrived = exact.float() - start.float(), found.float() - start.float()
        self._shares[name] = (_sum(arrived * change), _sum(change.square()))
        self._noise += _sum((arrived - change).square())
        self._power += _sum(start.float().square())
        return found

    def report(self) -> MergeReport | None:
        """None where nothing had to be rounded, or nothing has changed."""
        shares = {name: kept / whole for name, (kept, whole) in self._shares.items() if whole > 0}
        if not shares:
            return None
        least = min(shares, key=lambda name: shares[name])
        kept, whole = (sum(pair[i] for pair in self._shares.values()) for i in (0, 1))
        return MergeReport(kept / whole, shares[least], least, (self._noise / max(self._power, 1e-300)) ** 0.5)


def _sum(values: Tensor) -> float:
    return float(values.sum(dtype=torch.float64))


def rounded_at_random(exact: Tensor, seed: int) -> Tensor:
    """Float32 to bfloat16, up or down at random such that the mean is exact; the same for the same seed."""
    generator = torch.Generator(exact.device).manual_seed(seed)
    bits = exact.contiguous().view(torch.int32)
    chance = torch.randint(0, 1 << _KEPT_BITS, bits.shape, dtype=torch.int32, device=exact.device, generator=generator)
    return ((bits + chance) & -(1 << _KEPT_BITS)).view(torch.float32).to(torch.bfloat16)


def merged(layer: AdaptedLinear, name: str, narrowing: Narrowing) -> Streamed:
    """A layer's merged weight, under its published name and in its base's type."""
    base, a, b = layer.weight, layer.lora_A.weight, layer.lora_B.weight

    @torch.no_grad()
    def merge() -> Tensor:
        return narrowing(name, base.float() + layer.scale * (b.float() @ a.float()), base.detach())

    return Streamed(name, [base, a, b], merge)
