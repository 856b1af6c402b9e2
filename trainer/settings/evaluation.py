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
    # Test samples that are asked again at a run's end in other conditions (`timepro.conditions`): silence, shifted and
    # swapped audio, text or another clip in front, longer clips. 0: none; 128 take about half a minute a checkpoint.
    conditions: Natural = 0
    examples: Annotated[int, between(1, MAX_CLIPS)] = 6  # clips in the picture
