"""The whole configuration of an experiment, put together from the parts that read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rollout.worker import WorkerConfig
from timepro.data.synth import SoundscapeConfig
from timepro.tiny import TinyModelConfig
from trainer.evaluation import EvaluationConfig
from trainer.grpo import GrpoConfig
from trainer.lora import LoraConfig
from trainer.nodes import NodesConfig
from trainer.sender import SyncConfig
from trainer.sft import SftConfig
from trainer.tracking import WandbConfig
from trainer.zero import ZeroConfig


@dataclass
class SyntheticDataConfig:
    """How many clips of each split to synthesise, and what they are like (`data.*`).

    With manifests named, the synthesiser is not used: `sft`, `rl`, `validation` and `test` are JSONL files.
    """

    sft_clips: int = 3000
    rl_clips: int = 600
    validation_clips: int = 256
    test_clips: int = 512
    seed: int = 0
    soundscape: SoundscapeConfig = field(default_factory=SoundscapeConfig)
    sft: str = ""
    rl: str = ""
    validation: str = ""
    test: str = ""


@dataclass
class ModelConfig:
    """The checkpoint to start from (`model.*`): a folder, or nothing for the tiny model built here."""

    path: str = ""
    tiny: TinyModelConfig = field(default_factory=TinyModelConfig)


@dataclass
class LearnerConfig:
    """The learner's processes (`learner.*`)."""

    ranks: int = 2  # on each node that learns
    threads: int = 1  # CPU threads of a rank
    gpus: str = ""  # CUDA_VISIBLE_DEVICES of the ranks, comma-separated; empty: as inherited
    start_timeout_s: float = 300.0
    silence_timeout_s: float = 15.0  # a rank that something has stopped for so long ends the run
    stop_timeout_s: float = 90.0  # from a signal to a saved checkpoint; then the ranks are ended


@dataclass
class ControlConfig:
    """A control arm: more SFT from the same checkpoint for as long as GRPO took (`control.*`)."""

    enabled: bool = False


@dataclass
class ExperimentConfig:
    """Everything that `experiments/NAME.yaml` and `key=value` overrides may set."""

    name: str = ""
    task: Any = "sed"  # or weights of several, such as {sed: 2, ag: 1}
    seed: int = 0
    runs: str = "runs"  # folder of runs and cached stages
    data: SyntheticDataConfig = field(default_factory=SyntheticDataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    trainer: GrpoConfig = field(default_factory=GrpoConfig)
    rewards: Any = "adaptive"
    control: ControlConfig = field(default_factory=ControlConfig)
    rollout: WorkerConfig = field(default_factory=WorkerConfig)
    nodes: NodesConfig = field(default_factory=NodesConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
