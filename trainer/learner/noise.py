"""How much of an update's gradient is noise, from the gradients of its two halves (arXiv 1812.06162, appendix A).

Let mu be the mean and S the covariance, over prompts, of one prompt's gradient. An update of n prompts takes
g = g_1 + g_2, to which its halves of n_1 and n_2 prompts contribute

    E[g_1 . g_2] = n_1 n_2 / n^2 |mu|^2        E[|g_1|^2 + |g_2|^2] = (n_1^2 + n_2^2) / n^2 |mu|^2 + tr S / n

so both the signal |mu|^2 and the noise tr S / n have estimates without bias. Their ratio says how many times as many
prompts an update would need for noise and signal to be level: below that, twice the prompts are worth nearly twice the
steps; far above it, they are wasted. The noise is that of the prompts and of the answers drawn to them. One update's
estimates say little, so a run puts all of them together. What AdamW makes of them is left out: it scales every
parameter, and averages over about 1 / (1 - beta1) updates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from trainer.learner import distributed

Item = TypeVar("Item")


@dataclass(frozen=True)
class GradientNoise:
    """Estimates of one update; each may be below 0.

    Args:
        noise: the variance of the update's gradient, over the choice of its prompts; a square of the gradient's unit.
        signal: the square of the norm of the gradient over all prompts.
    """

    noise: float
    signal: float

    def as_metrics(self) -> dict[str, float]:
        """Under the names that they are logged under."""
        return {"gradient/noise": self.noise, "gradient/signal": self.signal}


@dataclass
class Measurements:
    """Those of a run so far.

    Attributes:
        noise, signal: summed.
        signal_squares: the sum of the signals' squares, for its error.
    """

    count: int = 0
    noise: float = 0.0
    signal: float = 0.0
    signal_squares: float = 0.0

    def add(self, noise: float, signal: float) -> None:
        """One update's."""
        self.count += 1
        self.noise, self.signal = self.noise + noise, self.signal + signal
        self.signal_squares += signal**2

    def level(self, prompts: float) -> Level | None:
        """The prompts an update at which noise and signal would be level; None after fewer than two measurements.

        Args:
            prompts: of an update, as it was measured.
        """
        if self.count < 2:
            return None
        noise, signal = self.noise / self.count, self.signal / self.count
        variance = max(self.signal_squares / self.count - signal**2, 0.0) * self.count / (self.count - 1)
        error = 2.0 * math.sqrt(variance / self.count)
        return Level(_ratio(prompts * noise, signal + error), _ratio(prompts * noise, signal - error), prompts)


@dataclass(frozen=True)
class Level:
    """Prompts an update at which noise and signal are level, with 95 % between `low` and `high` (by two errors)."""

    low: float
    high: float
    prompts: float

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"gradient: no signal was found in updates of {self.prompts:g} prompts"
        where = f"{self.low:,.0f} prompts an update, or more"
        if not math.isinf(self.high):
            where = f"{self.low:,.0f} to {self.high:,.0f} prompts an update"
        return f"gradient: noise and signal would be level at {where} (95 %); here are {self.prompts:g}"


def _ratio(noise: float, signal: float) -> float:
    return noise / signal if signal > 0 else math.inf


def halves(rows: Sequence[Item], rank: int) -> tuple[list[Item], list[Item]]:
    """A rank's rows in two parts. Where their number is odd, even and odd ranks have one more in different halves."""
    return list(rows[rank % 2 :: 2]), list(rows[1 - rank % 2 :: 2])


def estimate(first: Sequence[Tensor], whole: Sequence[Tensor], counts: tuple[int, int]) -> GradientNoise | None:
    """Noise and signal of an update. A collective.

    Args:
        first: this rank's partitions of the first half's gradient.
        whole: those of the update's.
        counts: this rank's rows in the halves.

    Returns:
        None where a half has no row on any rank.
    """
    n_1, n_2 = distributed.totals({"1": float(counts[0]), "2": float(counts[1])}).values()
    if not n_1 or not n_2:
        return None
    own = {"squares": 0.0, "product": 0.0}
    for one, both in zip(first, whole, strict=True):
        other = both - one
        own["squares"] += _dot(one, one) + _dot(other, other)
        own["product"] += _dot(one, other)
    squares, product = distributed.totals(own).values()
    noise = squares - product * (n_1**2 + n_2**2) / (n_1 * n_2)
    return GradientNoise(noise, product * (n_1 + n_2) ** 2 / (n_1 * n_2))


def _dot(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum(dtype=torch.float64))
