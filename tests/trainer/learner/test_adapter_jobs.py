"""What the jobs make of `lora.*`: dropout in SFT alone and drawn by step, a start that follows the seed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from timepro.config import load_experiment
from trainer.learner import distributed, grpo_job, sft_job
from trainer.learner.learner import Learner
from trainer.messages import JobSpec
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.lora import LoraConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


class Made(Exception):
    """The learner was made; what it was made of is the argument."""


def learner_of(job_module, run, monkeypatch, **job) -> tuple:
    overrides = ["lora.rank=8", "lora.dropout=0.1", "seed=7", "sft.encoder_warmup.steps=0"]
    config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)

    def make(*arguments):
        raise Made(arguments)

    monkeypatch.setattr(job_module, "Learner", make)
    spec = JobSpec("x", "", "base", "", "", "", "", "", "", **job)
    with pytest.raises(Made) as made:
        run(spec, config, None)
    return made.value.args[0]


def test_sft_has_dropout_and_rl_has_none_and_both_start_by_the_seed(monkeypatch):
    for module, run, dropout in ((sft_job, sft_job.run_sft, 0.1), (grpo_job, grpo_job.run_grpo, 0.0)):
        folder, *_, lora, seed, adapter, _ = learner_of(module, run, monkeypatch)
        assert (folder, lora.dropout, lora.rank, seed, adapter) == (Path("base"), dropout, 8, 7, None)
        assert learner_of(module, run, monkeypatch, adapter="sft/adapter")[-2] == Path("sft/adapter")


def test_a_steps_dropout_depends_on_seed_step_and_rank_alone(monkeypatch):
    def drawn(seed: int, step: int, rank: int, dropout: float = 0.1) -> list[float]:
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        Learner.seed_dropout(SimpleNamespace(lora=LoraConfig(rank=8, dropout=dropout), _seed=seed), step)
        return torch.rand(4).tolist()

    first = drawn(3, 5, 0)
    torch.rand(100)  # what an unbroken run has drawn in between
    assert drawn(3, 5, 0) == first
    assert len({tuple(drawn(*where)) for where in ((3, 5, 0), (3, 6, 0), (4, 5, 0), (3, 5, 1))}) == 4
    assert drawn(3, 5, 0, dropout=0.0) != first  # nothing to draw: the state is left alone
