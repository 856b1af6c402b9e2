"""How a model is tested: `evaluation.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EvaluationConfig:
    """How a model is tested."""

    max_tokens: int = 32
    examples: int = 6  # clips in the picture
