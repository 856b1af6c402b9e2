"""What the launcher does where there are cards, without one: mocked cards. See trainer/README.md."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from timepro.system import device
from trainer.launcher import doctor, ranks
from trainer.launcher.nodes import meeting
from trainer.launcher.nodes.node import Node
from trainer.launcher.ranks import RankPlan, affordable_ranks
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.learner import LearnerConfig

MODULES = (ranks, doctor, meeting)


@pytest.fixture
def mocked_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards a node."""
    for module in MODULES:
        monkeypatch.setattr(module, "on_gpu", lambda: True)
        monkeypatch.setattr(module, "n_gpus", lambda: 2)


def test_there_is_at_most_one_rank_a_mocked_card(mocked_cards: None, capsys: pytest.CaptureFixture[str]) -> None:
    for wanted, gpus, expected in ((2, "", 2), (4, "", 2), (4, "0,1,2", 3), (1, "1", 1)):
        assert affordable_ranks(LearnerConfig(ranks=wanted, gpus=gpus)) == expected
        said = capsys.readouterr().err
        assert (f"learner.ranks={wanted}, but there are {expected} GPU(s)" in said) is (wanted > expected)


def test_on_a_cpu_there_are_as_many_ranks_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "on_gpu", lambda: False)
    assert affordable_ranks(LearnerConfig(ranks=5, gpus="0")) == 5


@pytest.mark.parametrize("on_card", [True, False])
def test_a_ranks_environment_names_its_mocked_cards_or_keeps_it_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_card: bool
) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(ranks, "on_gpu", lambda: on_card)
    monkeypatch.setattr(ranks.guard, "protect", lambda pid: None)
    fake = SimpleNamespace(pid=1)
    monkeypatch.setattr(ranks.subprocess, "Popen", lambda command, env, **_: started.append(env) or fake)
    for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    config = LearnerConfig(ranks=2, gpus="2,3", threads=5)
    ranks._start(RankPlan(4, 2, 8, "127.0.0.1", 1), 1, config, tmp_path / "job.json", "token")
    (environment,) = started
    assert (environment["RANK"], environment["LOCAL_RANK"]) == ("5", "1")
    assert environment.items() >= device.HUGE_PAGES.items()
    kept = {name: environment.get(name) for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "OMP_NUM_THREADS")}
    if on_card:
        threads = str(max(5, (os.cpu_count() or 1) // 2))  # some number: torch must not choose one itself
        assert kept == {"CUDA_VISIBLE_DEVICES": "2,3", "DS_ACCELERATOR": None, "OMP_NUM_THREADS": threads}
    else:
        assert kept == {"CUDA_VISIBLE_DEVICES": None, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "5"}


def test_a_node_says_how_many_mocked_cards_it_has(mocked_cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    node: Any = SimpleNamespace(address="127.0.0.1")
    config = ExperimentConfig(name="cards")
    config.learner = LearnerConfig(ranks=4)
    facts = meeting.Facts.here(config, node)
    assert (facts.gpus, facts.ranks) == (2, 2)
    monkeypatch.setattr(meeting, "on_gpu", lambda: False)
    assert meeting.Facts.here(config, node).gpus == 0


@pytest.mark.parametrize(
    ("learner", "workers", "expected"),
    [
        ("0", "1", ("ok", "2; learner: 0, workers: 1")),
        ("", "", ("ok", "2; learner: all, workers: all")),
        ("0", "2", ("fail", "rollout.gpus names 2, but there are 2 GPUs: 0 to 1")),
        ("7", "1", ("fail", "learner.gpus names 7, but there are 2 GPUs: 0 to 1")),
    ],
)
def test_the_doctor_knows_the_mocked_cards_that_settings_name(
    mocked_cards: None, learner: str, workers: str, expected: tuple[str, str]
) -> None:
    config = ExperimentConfig(name="cards")
    config.learner.gpus, config.rollout.gpus = learner, workers
    assert doctor._cards(config, Node()) == expected
