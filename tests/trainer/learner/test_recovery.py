"""Failing workers: the others take over, and all are given up on in the end. Sender and pool are stand-ins here.

Real ones are killed in `tests/e2e/test_whole_run.py` and `tests/faults`.
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
    """Fails as often as it is told to, then reports; `answers` are the workers whose engine answers."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.delivered, self.answers, self.members = failures, [], list(URLS), []
        self.control = SimpleNamespace(answering=lambda: dict.fromkeys(self.answers))

    def deliver(self, version: int) -> SimpleNamespace:
        self.delivered.append(version)
        if self.failures:
            self.failures -= 1
            raise SyncError("weights did not reach the workers")
        self.members = list(self.answers)
        return SimpleNamespace(version=version, workers=len(self.members))


@pytest.fixture
def made(alone, monkeypatch):
    monkeypatch.setattr(recovery, "_POLL_S", 0.01)

    def make(failures=0, signal=0, answers=URLS, **settings):
        config = WorkerConfig(**{"max_restarts": 2, **settings})
        sender, used = ScriptedSender(failures), []
        sender.answers = list(answers)
        one = Recovery(sender, SimpleNamespace(use=used.append), config, SimpleNamespace(signal=signal))
        return one, sender, used

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
    one, sender, _ = made()
    assert one.attempt(failing(0), 7) == "groups"
    assert (one.count, sender.delivered) == (0, [])


def test_failed_work_is_done_again_with_the_same_weights(made, capfd):
    one, sender, used = made()
    assert one.attempt(failing(2), 7) == "groups"
    assert (one.count, sender.delivered, used) == (2, [7, 7], [URLS, URLS])
    said = capfd.readouterr().err
    assert "waiting for the rollout workers: no worker answered" in said
    assert "2 worker(s) have weights 7 again" in said


def test_a_run_goes_on_with_the_workers_that_are_left(made):
    one, _, used = made(answers=URLS[1:])
    assert one.attempt(failing(1), 7) == "groups"
    assert used == [URLS[1:]]


def test_a_worker_that_is_back_is_used_after_the_next_sync(made):
    one, sender, used = made(answers=URLS[1:])
    one.deliver(1)
    sender.answers = list(URLS)
    one.deliver(2)
    assert used == [URLS[1:], URLS]


def test_another_ranks_failure_repeats_the_work_here_too(made, monkeypatch):
    one, sender, _ = made()
    flags = iter([True, False])
    monkeypatch.setattr(distributed, "any_rank", lambda flag: next(flags))
    asked = []
    assert one.attempt(lambda: asked.append(1) or "groups", 3) == "groups"
    assert len(asked) == 2 and sender.delivered == [3]


def test_a_failed_sync_is_repeated_once_enough_workers_answer(made):
    one, sender, used = made(failures=2)
    assert one.deliver(4).version == 4
    assert (sender.delivered, used) == ([4, 4, 4], [URLS])


def test_workers_that_go_on_failing_are_given_up(made):
    with pytest.raises(WorkersLost, match="failed in 3 attempts: no worker answered"):
        made()[0].attempt(failing(9), 7)
    with pytest.raises(WorkersLost, match="could not be brought to weights 7: weights did not reach"):
        made(failures=9)[0].deliver(7)


def test_too_few_workers_are_given_up_at_the_deadline(made):
    one, _, used = made(answers=URLS[:1], start_timeout_s=0.1, min_workers=2)
    with pytest.raises(WorkersLost, match=r"fewer than rollout\.min_workers=2 rollout workers answered"):
        one.attempt(failing(1), 7)
    assert used == []


def test_a_signal_ends_the_waiting(made):
    with pytest.raises(WorkersLost, match="stopped while waiting"):
        made(signal=15, answers=[])[0].attempt(failing(1), 7)
