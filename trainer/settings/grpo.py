"""Reinforcement learning: `grpo.*`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from timepro.config.marks import Count, Natural, NotNegative, between
from trainer.settings.advantage import AdvantageConfig
from trainer.settings.batch import BatchConfig
from trainer.settings.checkpoints import CheckpointsConfig
from trainer.settings.groups import GroupsConfig
from trainer.settings.kl import KlConfig
from trainer.settings.objective import ObjectiveConfig
from trainer.settings.optimiser import OptimiserConfig


@dataclass
class GrpoConfig:
    """Settings of GRPO (arXiv 2402.03300)."""

    enabled: bool = True
    max_steps: Count = 120
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    kl: KlConfig = field(default_factory=KlConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    reference_weight: NotNegative = 0.0  # cross-entropy on the right answer beside the RL loss
    mask_truncated: bool = True  # an answer that was cut off teaches nothing
    minibatches: Count = 1  # parts of a step's groups, an optimiser update each, on the answers of the same weights
    validate_every: Natural = 0  # steps between greedy evaluations on the validation set; 0 for none
    keep_best: bool = False  # end with the weights of the best validation (the start's among them), not with the last
    noise_every: Natural = 0  # steps between measurements of how much of a gradient is noise; 0 for none
    # 1: a step's groups are generated while the one before trains, with weights one update older.
    ahead: Annotated[int, between(0, 1)] = 0

    def check(self) -> None:
        """Raises ValueError for settings that contradict one another, naming the keys."""
        self.objective.check()
        self.kl.check()
        self.advantage.check()
        self.groups.check()
        self.checkpoints.check("grpo.checkpoints")
        prompts = self.groups.prompts_per_step
        if not 1 <= self.minibatches <= prompts:
            raise ValueError(
                f"grpo.minibatches is {self.minibatches}; it must be 1 to grpo.groups.prompts_per_step ({prompts}), "
                "since a group stays whole"
            )
        if self.ahead and self.groups.flat_groups == "resample":
            raise ValueError(
                "grpo.ahead=1 and grpo.groups.flat_groups=resample do not go together: the workers are busy with the "
                "next step when this one's flat groups are known; set one of them back"
            )
        if self.keep_best and not self.validate_every:
            raise ValueError("grpo.keep_best needs grpo.validate_every: the steps between validations")
