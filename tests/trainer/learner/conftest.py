"""What the learner's tests share."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from rollout import control
from trainer.learner import distributed, zero
from trainer.learner.sender import WeightSender
from trainer.settings.sync import SyncConfig

from .stand_in_workers import Policy, StandInWorker


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank without a process group: what it says is what all ranks say."""
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    monkeypatch.setattr(distributed, "_reduced", lambda values, operation: dict(values))
    monkeypatch.setattr(distributed, "from_first", lambda value: value)
    monkeypatch.setattr(distributed, "from_every", lambda value: [value])


@pytest.fixture
def workers():
    """Two stand-ins for rollout workers."""
    started = [StandInWorker() for _ in range(2)]
    yield started
    for worker in started:
        worker.close()


@pytest.fixture
def send(alone, workers, monkeypatch):
    """Makes a sender of one rank, and its policy."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(control, "_ASK_S", 1.0)
    monkeypatch.setattr(zero, "gathered", lambda engine, parameters: nullcontext())
    made = []

    def make(gather_s=0.0, min_workers=1, dtype=torch.float32, policy=None, **settings):
        policy = policy or Policy(gather_s, dtype)
        config = SyncConfig(**{"timeout_s": 10.0, "bucket_mib": 0.01, **settings})
        engine, urls = SimpleNamespace(module=policy), [worker.url for worker in workers]
        made.append(WeightSender(engine, urls, "token", config, own_gpus=False, min_workers=min_workers))
        return made[-1], policy

    yield make
    for one in made:
        one.close()
