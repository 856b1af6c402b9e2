"""A Qwen2 decoder of two layers."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, Qwen2Model


def small_qwen2() -> Qwen2Model:
    """The same random weights every time."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="sdpa",
    )  # fmt: skip
    return Qwen2Model(config).eval()
