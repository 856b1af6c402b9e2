"""Failing workers: asked again once they are back, given up on in the end. Sender and workers are stand-ins here.

The real ones are killed in `tests/e2e/test_whole_run.py`.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rollout.client import WorkerError
from rollout.settings import WorkerConfig
from trainer.learner import distributed, recovery
from trainer.learner.recovery import Recovery, WorkersLost
from trainer.learner.sender import SyncError

URLS = ["http://one", "http://two"]


class ScriptedSender:
    """Fails as often as it is told to, then reports."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.connected, self.delivered = failures, 0, []

    def connect(self) -> None:
        self.connected += 1

    def deliver(self, version: int) -> str:
        self.delivered.append(version)
        if self.failures:
            self.failures -= 1
            raise SyncError("weights did not reach the workers")
        return f"sync {version}"


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "largest", list)
    monkeypatch.setattr(distributed, "from_first", list)
    monkeypatch.setattr(recovery, "_POLL_S", 0.01)
    monkeypatch.setattr(recovery, "_serves", lambda url: True)

    def make(failures=0, signal=0, **settings):
        config = WorkerConfig(max_restarts=1, **settings)
        return Recovery(ScriptedSender(failures), URLS, config, SimpleNamespace(signal=signal))

    return make


def failing(times, result="groups"):
    left = [times]

    def work():
        if left[0]:
            left[0] -= 1
            raise WorkerError("no worker answered")
        return result

    return work


def test_work_without_a_failure_costs_no_sync(made):
    one = made()
    assert one.attempt(failing(0), 7) == "groups"
    assert (one.count, one._sender.delivered) == (0, [])


def test_failed_work_is_done_again_with_the_same_weights(made, capfd):
    one = made()
    assert one.attempt(failing(2), 7) == "groups"
    assert (one.count, one._sender.connected, one._sender.delivered) == (2, 2, [7, 7])
    assert "waiting for the rollout workers: no worker answered" in capfd.readouterr().err


def test_another_ranks_failure_repeats_the_work_here_too(made, monkeypatch):
    one, flags = made(), iter([[1.0], [0.0]])
    monkeypatch.setattr(distributed, "largest", lambda values: next(flags))
    asked = []
    assert one.attempt(lambda: asked.append(1) or "groups", 3) == "groups"
    assert len(asked) == 2 and one._sender.delivered == [3]


def test_a_sync_is_repeated_over_a_new_group(made):
    one = made(failures=2)
    assert one.deliver(4) == "sync 4"
    assert (one._sender.connected, one._sender.delivered) == (2, [4, 4, 4])


def test_workers_that_go_on_failing_are_given_up(made):
    with pytest.raises(WorkersLost, match="failed in 3 attempts: no worker answered"):
        made().attempt(failing(9), 7)
    with pytest.raises(WorkersLost, match="could not be brought to weights 7: weights did not reach"):
        made(failures=9).deliver(7)


def test_workers_that_stay_away_are_given_up_at_the_deadline(made, monkeypatch):
    monkeypatch.setattr(recovery, "_serves", lambda url: url == URLS[0])
    with pytest.raises(WorkersLost, match="did not serve again within rollout.start_timeout_s=0 s"):
        made(start_timeout_s=0.1).attempt(failing(1), 7)


def test_a_signal_ends_the_waiting(made, monkeypatch):
    monkeypatch.setattr(recovery, "_serves", lambda url: False)
    with pytest.raises(WorkersLost, match="stopped while waiting"):
        made(signal=15).attempt(failing(1), 7)
