"""Frame-wise warm-up of a random encoder: `sft.encoder_warmup.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Count, Natural, NotNegative


@dataclass
class EncoderWarmupConfig:
    """Settings of the warm-up."""

    steps: Natural = 0  # 0: none, for encoders that arrive trained
    clips: Count = 32  # a step, over all ranks
    learning_rate: NotNegative = 2e-3
    boundary_weight: NotNegative = 5.0  # onsets and offsets are rare among frames
