"""Settings of the tiny model (`model.tiny.*`)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TimestampsConfig:
    """The timestamp vocabulary to build."""

    stride: float = 0.04
    duration: float = 30.0


@dataclass
class TinyModelConfig:
    """Sizes of the tiny model. The defaults learn to detect events within minutes on one CPU core."""

    family: str = "qwen2_5_omni"  # or qwen2_audio
    hidden_size: int = 128
    layers: int = 2
    heads: int = 4  # head_dim 32: vLLM's CPU attention takes no smaller one
    key_value_heads: int = 2
    feed_forward: int = 256
    rope_theta: float = 1e4
    encoder_width: int = 96
    encoder_layers: int = 2
    encoder_heads: int = 4
    encoder_feed_forward: int = 192
    encoder_window: int = 100  # Omni: audio frames a block attends over, before pooling: 2 s, as published
    tie_word_embeddings: bool = False
    timestamps: TimestampsConfig = field(default_factory=TimestampsConfig)
    timestamp_init: str = "smooth"
    astp: bool = True
    astp_every: int = 1
    astp_position: str = "after"
    answer_style: str = "timestamps"
    seed: int = 0
