"""LoRA of the language model: `lora.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from rollout.settings import AdapterShape
from timepro.config.marks import Natural, Positive, Share


@dataclass
class LoraConfig:
    """LoRA of the language model; rank 0 trains all of it instead. The paper: rank 8, alpha 32."""

    rank: Natural = 0
    alpha: Positive = 32.0
    dropout: Share = 0.0  # of SFT alone: RL trains the very policy that the workers sample from
    # `lora.continue`: true, as in the paper: RL goes on with SFT's own adapter, over the checkpoint before SFT.
    # false, the default: RL starts a fresh one over SFT's merged weights.
    continue_: bool = False
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )

    @property
    def shape(self) -> AdapterShape | None:
        """What the workers make room for; None in full fine-tuning."""
        return AdapterShape(self.rank, tuple(self.targets)) if self.rank else None
