"""AdamW and its schedule: `sft.optimiser.*`, `grpo.optimiser.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class OptimiserConfig:
    """AdamW, linear warm-up, a flat part, then a cosine. A learning rate of 0 measures pure drift."""

    learning_rate: float = 1e-6
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    warmup_steps: int = 10
    flat: float = 0.3  # share of the training at the peak rate, before the cosine
    floor: float = 0.05  # where the cosine ends, as a share of the peak
    max_refused_steps: int = 10  # in a row, refused because the gradient was not finite, before the run stops
