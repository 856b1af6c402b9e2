"""Settings of the tiny model (`model.tiny.*`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.config.marks import Count, Natural, Positive


@dataclass
class TimestampsConfig:
    """The timestamp vocabulary to build."""

    stride: Positive = 0.04
    duration: Positive = 30.0
    style: str = "table"  # a token a time; "factorised": whole second and fraction, for long ranges


@dataclass
class TinyModelConfig:
    """The tiny model: the shipped base with timestamps, or a random one of any size.

    The default sizes learn to detect events within minutes on one CPU core.
    """

    from_scratch: bool = True  # random weights; false: the small base that ships with the package
    family: str = "qwen2_5_omni"  # or another name in `timepro.families`
    hidden_size: Count = 128
    layers: Count = 2
    heads: Count = 4  # head_dim 32: vLLM's CPU attention takes no smaller one
    key_value_heads: Count = 2
    feed_forward: Count = 256
    rope_theta: Positive = 1e4
    encoder_mel_bins: Count = 128  # of its log-mel input: 128 as published, 80 of Whisper's older encoders
    encoder_width: Count = 96
    encoder_layers: Count = 2
    encoder_heads: Count = 4
    encoder_feed_forward: Count = 192
    encoder_window: Count = 100  # Omni: audio frames a block attends over, before pooling: 2 s, as published
    tie_word_embeddings: bool = False
    vocabulary: Natural = 0  # tokens at least, filled up with some that no text gives; published models have 152,064
    timestamps: TimestampsConfig = field(default_factory=TimestampsConfig)
    published: bool = False  # without any timestamps, as published checkpoints come
    timestamp_init: str = "smooth"
    astp: bool = True
    astp_every: Count = 1
    astp_position: str = "after"
    answer_style: str = "timestamps"
    seed: Natural = 0
