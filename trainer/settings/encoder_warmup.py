"""Frame-wise warm-up of a random encoder, or of a projector behind a trained one: `sft.encoder_warmup.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Count, Natural, NotNegative

PARTS = ("all", "projector")


@dataclass
class EncoderWarmupConfig:
    """Settings of the warm-up."""

    steps: Natural = 0  # 0: none, for encoders that arrive trained
    part: str = "all"
    """What is trained: all of it, or the "projector" that `timepro compose` puts behind a pretrained encoder."""
    clips: Count = 32  # a step, over all ranks
    learning_rate: NotNegative = 2e-3
    boundary_weight: NotNegative = 5.0  # onsets and offsets are rare among frames

    def check(self) -> None:
        """Raise ValueError for a part that there is not."""
        if self.part not in PARTS:
            raise ValueError(f"sft.encoder_warmup.part is {self.part!r}; it must be {' or '.join(PARTS)}")
