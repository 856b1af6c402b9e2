"""The whole of an experiment's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from rollout.settings import WorkerConfig
from timepro.config.marks import Formerly, Natural, Spec
from trainer.settings.control import ControlConfig
from trainer.settings.data import DataConfig
from trainer.settings.evaluation import EvaluationConfig
from trainer.settings.grpo import GrpoConfig
from trainer.settings.learner import LearnerConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.model import ModelConfig
from trainer.settings.nodes import NodesConfig
from trainer.settings.profile import ProfileConfig
from trainer.settings.sft import SftConfig
from trainer.settings.sync import SyncConfig
from trainer.settings.wandb import WandbConfig
from trainer.settings.zero import ZeroConfig


@dataclass
class ExperimentConfig:
    """Everything that `experiments/NAME.yaml` and `key=value` overrides may set."""

    name: str = ""
    task: Any = "sed"  # or weights of several, such as {sed: 2, ag: 1}
    seed: Natural = 0
    runs: str = "runs"  # folder of runs and cached stages
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    grpo: Annotated[GrpoConfig, Formerly("trainer")] = field(default_factory=GrpoConfig)
    rewards: Annotated[Any, Spec()] = "adaptive"
    control: ControlConfig = field(default_factory=ControlConfig)
    rollout: WorkerConfig = field(default_factory=WorkerConfig)
    nodes: NodesConfig = field(default_factory=NodesConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)

    @property
    def cards_apart(self) -> bool:
        """Whether no card serves a learner rank and a worker: NCCL refuses two processes on one."""
        if self.nodes.generating:
            return True  # they are not even on the same nodes
        learner, workers = (
            {card.strip() for card in named.split(",") if card.strip()}
            for named in (self.learner.gpus, self.rollout.gpus)
        )
        return bool(learner and workers) and not learner & workers  # who names none takes what is visible

    @property
    def sends_deltas(self) -> bool:
        """Whether the weight stream may bring deltas."""
        return self.sync.resolved_mode(self.lora.rank > 0, self.zero.resolved_dtype) == "delta"
