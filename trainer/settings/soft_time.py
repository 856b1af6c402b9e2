"""A distance-aware target for timestamp tokens: `sft.soft_time.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Positive, Share


@dataclass
class SoftTimeConfig:
    """Settings of the target."""

    weight: Share = 0.0  # share of the mass that is spread; 0: plain cross-entropy
    sigma: Positive = 0.3  # of the Gaussian, in seconds
