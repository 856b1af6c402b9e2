"""Ranks that end or stand still, seen by who started them (the ranks are stand-in processes here)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from timepro.config import load_experiment
from trainer.launcher import ranks as ranks_module
from trainer.launcher.checks import total_ranks
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.launcher.ranks import RankPlan, RankWatch, end_ranks, learner_for
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def ranks() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(SLEEP, start_new_session=True) for _ in range(2)]
    yield processes
    end_ranks(processes, signal.SIGKILL, 0.0)


def test_a_rank_that_ended_badly_is_named_with_its_last_words(ranks, tmp_path: Path) -> None:
    (tmp_path / "learner-3.log").write_text("no room\n")
    watch = RankWatch(ranks, RankPlan(2, 2, 4, "", 0), tmp_path, 1.0)
    assert watch.failure() == ""
    ranks[1].kill()
    ranks[1].wait()
    assert watch.failure() == "learner rank 3 ended with exit code -9; the others are ended too.\nno room"


def test_a_rank_that_was_killed_is_named_before_those_that_it_took_down(ranks, tmp_path: Path) -> None:
    for process, number in zip(ranks, (signal.SIGTERM, signal.SIGKILL), strict=True):
        process.send_signal(number)
        process.wait()
    assert RankWatch(ranks, RankPlan(0, 2, 2, "", 0), tmp_path, 1.0).failure().startswith("learner rank 1 ended with")


def test_a_rank_that_is_stopped_is_named_when_its_time_is_over(ranks, tmp_path: Path) -> None:
    watch = RankWatch(ranks, RankPlan(0, 2, 2, "", 0), tmp_path, 0.5)
    ranks[0].send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    assert watch.failure() == ""
    ranks[0].send_signal(signal.SIGCONT)
    time.sleep(0.6)
    assert watch.failure() == ""  # it goes on: the count starts again
    ranks[0].send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while not (said := watch.failure()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert said.startswith("learner rank 0 has been stopped for 1 s (learner.silence_timeout_s=0.5); the others")


@pytest.mark.parametrize(
    ("kind", "words", "on_gpu", "expected"),
    [
        ("sft", [], True, (8, "0,1,2,3,4,5,6,7")),
        ("grpo", [], True, (4, "0,1,2,3")),
        ("sft", ["sft.every_card=false"], True, (4, "0,1,2,3")),
        ("sft", [], False, (4, "0,1,2,3")),
        ("sft", ["rollout.gpus=2,3,4,5"], True, (6, "0,1,2,3,4,5")),  # a card that both name has one rank
        ("sft", ["rollout.gpus="], True, (4, "0,1,2,3")),  # whose cards the workers' are is not said
    ],
)
def test_sft_takes_the_workers_cards_too(monkeypatch, kind: str, words, on_gpu: bool, expected) -> None:
    monkeypatch.setattr(ranks_module, "on_gpu", lambda: on_gpu)
    config = load_experiment("qwen2_5_omni_7b/sed_grpo", words, ExperimentConfig, EXPERIMENTS)
    found = learner_for(kind, config)
    assert (found.ranks, found.gpus) == expected
    assert total_ranks(config, 2, kind) == 2 * expected[0]


def test_a_plan_has_a_rank_for_every_card_of_the_jobs_kind(monkeypatch) -> None:
    monkeypatch.setattr(ranks_module, "on_gpu", lambda: True)
    config = load_experiment("qwen2_5_omni_7b/sed_grpo", [], ExperimentConfig, EXPERIMENTS)
    nodes = Nodes(config, Node())
    assert [nodes.plans(config, kind, "127.0.0.1", 1)[0].count for kind in ("sft", "grpo")] == [8, 4]
