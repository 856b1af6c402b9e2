"""Deltas against stand-in workers: when one follows, and that any doubt is followed by a whole stream.

The stand-ins receive over a real gloo group and sum all of their weights; the learner is one rank with plain tensors.
A real vLLM model takes deltas in `test_sender_into_vllm.py`, real engines in `tests/e2e`.
"""

from __future__ import annotations

import pytest
import torch

from trainer.learner import zero
from trainer.learner.sender import SyncError

from .stand_in_workers import has


def train(policy, share=0.02, seed=0):
    """Change some numbers of every tensor."""
    draw = torch.Generator().manual_seed(seed)
    for tensor in policy.tensors.values():
        places = torch.rand(tensor.shape, generator=draw) < share
        places.view(-1)[-1] = True
        tensor.data[places] *= 1.5


def deliver(one, policy, workers, version, kind):
    """A trained version reaches all workers in the way that it should."""
    train(policy, seed=version)
    before = [len(worker.kinds) for worker in workers]
    report = one.deliver(version)
    assert all(has(worker, policy, version) for worker in workers)
    for worker, count in zip(workers, before, strict=True):
        assert worker.kinds[count:] == [{"dense": "whole", "delta": "delta"}[kind]]
    assert report.mode == kind
    return report


def test_bfloat16_goes_whole_first_and_then_as_deltas(send, workers):
    one, policy = send(dtype=torch.bfloat16)
    for worker in workers:
        worker.dtype = "bfloat16"
    whole = deliver(one, policy, workers, 1, "dense")
    for version in (2, 3, 4):
        report = deliver(one, policy, workers, version, "delta")
        assert report.bytes < whole.bytes / 5 and report.arrived == 1.0
        assert 0 < report.paused_seconds < report.seconds
    assert one.deliver(5).arrived is None  # nothing has changed
    assert all(has(worker, policy, 5) for worker in workers)


def test_float32_goes_whole_unless_deltas_are_asked_for(send, workers):
    one, policy = send()
    for version in (1, 2):
        deliver(one, policy, workers, version, "dense")
    asked, policy = send(mode="delta")
    deliver(asked, policy, workers, 3, "dense")
    deliver(asked, policy, workers, 4, "delta")


def test_a_delta_that_would_be_larger_goes_whole_and_deltas_follow_it(send, workers):
    one, policy = send(mode="delta")
    deliver(one, policy, workers, 1, "dense")
    for tensor in policy.tensors.values():
        tensor.data.add_(1.0)
    assert one.deliver(2).mode == "dense" and all(has(worker, policy, 2) for worker in workers)
    deliver(one, policy, workers, 3, "delta")


def test_a_worker_that_was_started_again_gets_whole_weights(send, workers):
    one, policy = send(mode="delta", retries=0)
    deliver(one, policy, workers, 1, "dense")
    deliver(one, policy, workers, 2, "delta")
    workers[0].restart()
    deliver(one, policy, workers, 3, "dense")
    deliver(one, policy, workers, 4, "delta")


def test_a_worker_that_missed_a_version_gets_whole_weights(send, workers):
    one, policy = send(mode="delta", retries=0)
    deliver(one, policy, workers, 1, "dense")
    workers[0].hangs.set()
    train(policy)
    assert one.deliver(2).workers == 1 and has(workers[1], policy, 2)
    workers[0].hangs.clear()
    deliver(one, policy, workers, 3, "dense")
    deliver(one, policy, workers, 4, "delta")


def test_a_worker_in_the_group_with_another_version_gets_whole_weights(send, workers):
    one, policy = send(mode="delta", retries=0)
    deliver(one, policy, workers, 1, "dense")
    workers[1]._has = 7
    deliver(one, policy, workers, 2, "dense")


def test_a_learner_that_was_resumed_sends_whole_weights_first(send, workers):
    one, policy = send(mode="delta")
    deliver(one, policy, workers, 1, "dense")
    deliver(one, policy, workers, 2, "delta")
    one.close()
    again, _ = send(mode="delta", policy=policy)
    deliver(again, policy, workers, 3, "dense")
    deliver(again, policy, workers, 4, "delta")


def test_a_bit_that_flips_within_a_delta_is_seen_and_whole_weights_follow(send, workers, capfd):
    one, policy = send(mode="delta")
    deliver(one, policy, workers, 1, "dense")
    workers[0].corrupts = True
    train(policy)
    assert one.deliver(2).mode == "dense"
    assert all(has(worker, policy, 2) for worker in workers)
    assert one.checksum_failures == 1 and "checksum mismatch" in capfd.readouterr().err
    deliver(one, policy, workers, 3, "delta")


def test_a_bit_that_flips_in_a_workers_memory_is_seen_at_the_next_delta(send, workers, capfd):
    """Of a number that the delta does not touch."""
    one, policy = send(mode="delta")
    deliver(one, policy, workers, 1, "dense")
    workers[1].weights["embed"].view(torch.int32)[17, 3] ^= 1
    policy.tensors["up"].data[0] *= 2
    assert one.deliver(2).mode == "dense"
    assert all(has(worker, policy, 2) for worker in workers)
    assert "checksum mismatch over all weights" in capfd.readouterr().err


def test_a_delta_that_is_interrupted_is_followed_by_whole_weights(send, workers):
    one, policy = send(mode="delta", retries=0, timeout_s=2.0)
    deliver(one, policy, workers, 1, "dense")
    train(policy)
    one.connect()
    workers[1].close()
    with pytest.raises(SyncError, match="did not reach the workers"):
        one.send(2)
    assert one.deliver(2).mode == "dense"
    assert one.members == [workers[0].url] and has(workers[0], policy, 2)


def test_workers_that_take_no_deltas_get_whole_weights_and_the_reason_is_said_once(send, workers, capfd):
    one, policy = send(mode="delta")
    workers[1].whole_only = "layers.0 is cut on its way (tensor parallelism does so)"
    for version in (1, 2, 3):
        deliver(one, policy, workers, version, "dense")
    said = capfd.readouterr().err
    assert said.count("weights go whole at every sync, no deltas (sync.mode): layers.0 is cut on its way") == 1


def test_workers_of_another_type_get_whole_weights(send, workers, capfd):
    one, policy = send(mode="delta", min_arrived=0.0)
    workers[0].dtype = workers[1].dtype = "bfloat16"
    for version in (1, 2):
        deliver(one, policy, workers, version, "dense")
    assert "workers keep bfloat16 and the learner sends float32" in capfd.readouterr().err


def test_other_slices_than_zero_3s_plain_ones_go_whole_and_are_refused_where_deltas_are_asked_for(
    send, workers, monkeypatch
):
    monkeypatch.setattr(zero, "shares_equally", lambda parameter: False)
    one, policy = send(dtype=torch.bfloat16)
    for version in (1, 2):
        deliver(one, policy, workers, version, "dense")
    with pytest.raises(ValueError, match=r"leave zero\.extra alone, or set sync\.mode=dense"):
        send(mode="delta")
