"""The checkpoint to start from: `model.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.tiny.config import TinyModelConfig


@dataclass
class ModelConfig:
    """The checkpoint to start from: a folder, or nothing for the tiny model built here."""

    path: str = ""
    tiny: TinyModelConfig = field(default_factory=TinyModelConfig)
