"""AdamW and its schedule: `sft.optimiser.*`, `grpo.optimiser.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Count, Natural, NotNegative, Positive, Share


@dataclass
class OptimiserConfig:
    """AdamW, linear warm-up, a flat part, then a cosine. A learning rate of 0 measures pure drift."""

    learning_rate: NotNegative = 1e-6
    beta1: Share = 0.9
    beta2: Share = 0.98
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    warmup_steps: Natural = 10
    flat: Share = 0.3  # share of the training at the peak rate, before the cosine
    floor: Share = 0.05  # where the cosine ends, as a share of the peak
    max_refused_steps: Count = 10  # in a row, refused because the gradient was not finite, before the run stops
