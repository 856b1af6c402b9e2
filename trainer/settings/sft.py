"""Supervised fine-tuning: `sft.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.config.marks import Count, Natural, NotNegative
from trainer.settings.batch import BatchConfig
from trainer.settings.checkpoints import CheckpointsConfig
from trainer.settings.encoder_warmup import EncoderWarmupConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.soft_time import SoftTimeConfig

UNBOUNDED = 2**62  # steps, of a training that time bounds


@dataclass
class SftConfig:
    """Settings of supervised fine-tuning. The paper: 3 epochs at 1e-5."""

    enabled: bool = True
    label_times: str = "auto"  # annotated times where every clip has them, else exact; or one of the two by name
    max_steps: Count = 500
    epochs: NotNegative = 0.0  # passes over the samples, in place of max_steps; 0: max_steps decides
    batch_size: Count = 32  # samples a step, over all ranks
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=1e-5, weight_decay=0.01))
    batch: BatchConfig = field(default_factory=BatchConfig)
    # On GPUs: a rank on each card that learner.gpus and rollout.gpus name, since the workers are not up yet.
    every_card: bool = True
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    soft_time: SoftTimeConfig = field(default_factory=SoftTimeConfig)
    encoder_warmup: EncoderWarmupConfig = field(default_factory=EncoderWarmupConfig)
    log_every: Count = 10
    validate_every: Natural = 0  # steps between validation losses; 0: at the end only
    keep_best: bool = False  # end with the weights of the lowest validation loss, the start's among them
