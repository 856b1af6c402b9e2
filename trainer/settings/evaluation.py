"""How a model is tested: `evaluation.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from timepro.config.marks import Count, Natural, between
from timepro.plots.files import MAX_CLIPS


@dataclass
class EvaluationConfig:
    """How a model is tested."""

    max_tokens: Count = 32
    validation_clips: Natural = 0  # of the validation set, for `grpo.validate_every`; 0: all of it
    examples: Annotated[int, between(1, MAX_CLIPS)] = 6  # clips in the picture
