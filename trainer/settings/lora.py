"""LoRA of the language model: `lora.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.config.marks import Natural, Positive, Share


@dataclass
class LoraConfig:
    """LoRA of the language model; rank 0 trains all of it instead. The paper: rank 8, alpha 32."""

    rank: Natural = 0
    alpha: Positive = 32.0
    dropout: Share = 0.0
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
