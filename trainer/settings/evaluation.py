"""How a model is tested: `evaluation.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from timepro.config.marks import Count, between
from timepro.plots.files import MAX_CLIPS


@dataclass
class EvaluationConfig:
    """How a model is tested."""

    max_tokens: Count = 32
    examples: Annotated[int, between(1, MAX_CLIPS)] = 6  # clips in the picture
