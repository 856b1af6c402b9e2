"""Frame-wise warm-up of a random encoder: `sft.encoder_warmup.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EncoderWarmupConfig:
    """Settings of the warm-up."""

    steps: int = 0  # 0: none, for encoders that arrive trained
    clips: int = 32  # a step, over all ranks
    learning_rate: float = 2e-3
    boundary_weight: float = 5.0  # onsets and offsets are rare among frames
