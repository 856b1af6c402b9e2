"""Tiny checkpoints of the real model classes, with a tokenizer trained on the spot.

They stand in for the published checkpoints where those cannot be had: the same classes, the same file layout, the
same key names, so that transformers, vLLM and this project load them from one folder as they load the real thing.
"""

from __future__ import annotations

from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TimestampsConfig, TinyModelConfig
from timepro.tiny.tokenizer import build_tokenizer

__all__ = ["TimestampsConfig", "TinyModelConfig", "build_tiny_checkpoint", "build_tokenizer"]
