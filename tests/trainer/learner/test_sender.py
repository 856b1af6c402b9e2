"""The weight sync against stand-in workers: who takes part, what happens to those that do not, and what ends it.

The stand-ins receive over a real gloo group; the learner is one rank with plain tensors. Real engines: `tests/e2e`.
"""

from __future__ import annotations

import time

import pytest

from trainer.learner.sender import SyncError

from .stand_in_workers import has


def urls(workers):
    return [worker.url for worker in workers]


def test_all_workers_get_the_weights_and_generate_nothing_meanwhile(send, workers):
    one, policy = send()
    report = one.deliver(1)
    assert (report.version, report.workers, one.members) == (1, 2, urls(workers))
    for worker in workers:
        assert has(worker, policy, 1)
        assert worker.calls == ["timepro_state", "init_weight_transfer_engine", "timepro/update", "timepro/finish"]
    policy.tensors["up"].data.mul_(2.0)
    one.deliver(2)
    assert all(has(worker, policy, 2) for worker in workers)
    assert [worker.calls.count("init_weight_transfer_engine") for worker in workers] == [1, 1]


def test_a_worker_whose_engine_hangs_is_left_out_and_joins_again_later(send, workers, capfd):
    one, policy = send()
    one.deliver(1)
    workers[0].hangs.set()
    began = time.monotonic()
    assert one.deliver(2).workers == 1
    assert time.monotonic() - began < 5  # the others do not wait for it to time out in their midst
    assert one.members == urls(workers[1:]) and has(workers[1], policy, 2)
    assert f"worker {workers[0].url} does not answer; going on without it (1 of 2 rollout" in capfd.readouterr().err
    one.deliver(3)
    assert "does not answer" not in capfd.readouterr().err  # said once
    workers[0].hangs.clear()
    assert one.deliver(4).workers == 2
    assert all(has(worker, policy, 4) for worker in workers)
    assert f"worker {workers[0].url} is back (2 of 2 rollout workers)" in capfd.readouterr().err


def test_a_worker_that_is_gone_is_left_out(send, workers):
    one, policy = send()
    workers[0].close()
    assert one.deliver(1).workers == 1
    assert has(workers[1], policy, 1)


def test_a_worker_that_dies_within_a_sync_is_named_in_one_line(send, workers):
    one, policy = send(retries=0)
    one.connect()
    workers[1].close()
    with pytest.raises(SyncError, match=rf"{workers[1].url}/timepro/update: no connection; has the") as error:
        one.send(1)
    assert len(str(error.value)) < 300
    one.deliver(2)
    assert one.members == urls(workers[:1]) and has(workers[0], policy, 2)


def test_a_worker_that_was_started_again_is_met_again_without_a_failed_attempt(send, workers, capfd):
    one, policy = send(retries=0)
    one.deliver(1)
    workers[0].restart()
    one.deliver(2)
    assert all(has(worker, policy, 2) for worker in workers)
    assert capfd.readouterr().err == ""


def test_too_few_workers_are_an_error(send, workers):
    one, _ = send(min_workers=2, retries=0)
    workers[1].hangs.set()
    with pytest.raises(SyncError, match=r"1 of 2 rollout workers answer, fewer than rollout\.min_workers=2"):
        one.deliver(1)
    assert workers[0].calls == ["timepro_state"]


def test_a_worker_that_does_not_come_to_the_meeting_is_named(send, workers):
    one, policy = send(timeout_s=1.5, retries=0)
    workers[1].lonely.set()
    with pytest.raises(SyncError, match=f"could not meet: .*{workers[1].url} did not join within sync.timeout_s=1.5 s"):
        one.deliver(1)
    workers[1].lonely.clear()
    one.deliver(2)
    assert all(has(worker, policy, 2) for worker in workers)


def test_a_worker_that_refuses_the_meeting_ends_it_at_once(send, workers):
    one, _ = send(timeout_s=60.0, retries=0)
    join = workers[1]._join
    workers[1]._join = lambda info: join(info | {"host": 3})
    began = time.monotonic()
    with pytest.raises(SyncError, match="could not meet: RuntimeError: .*answered 500"):
        one.deliver(1)
    assert time.monotonic() - began < 20


def test_a_prefix_cache_that_is_not_reset_fails_the_sync_and_generation_goes_on(send, workers):
    one, policy = send(retries=0)
    workers[1].busy = True
    with pytest.raises(SyncError, match=rf"{workers[1].url}/timepro/finish answered 500: .*prefix cache was not reset"):
        one.deliver(1)
    assert not workers[0].paused and not workers[1].paused
    assert "timepro_abort_update" in workers[0].calls
    workers[1].busy = False
    one.deliver(2)
    assert all(has(worker, policy, 2) for worker in workers)


def test_a_bit_that_flips_on_the_way_is_seen_and_sent_again(send, workers, capfd):
    one, policy = send()
    workers[0].corrupts = True
    one.deliver(1)
    assert all(has(worker, policy, 1) for worker in workers)
    assert one.checksum_failures == 1
    assert "checksum mismatch" in capfd.readouterr().err


def test_a_stream_may_last_as_long_as_it_makes_progress(send, workers):
    """Buckets of up to 2.5 s each, 5 s in all, where no wait of its own may last 4 s."""
    one, policy = send(gather_s=1.25, timeout_s=4.0, retries=0)
    one.control._timeout_s = 4.0
    report = one.deliver(1)
    assert report.seconds > 5.0 and all(has(worker, policy, 1) for worker in workers)


def test_a_stream_that_stands_still_ends_at_the_deadline(send, workers):
    one, _ = send(timeout_s=1.0, retries=0)
    one.connect()
    receive = workers[0]._receive

    def late(update):
        time.sleep(4.0)
        receive(update)

    workers[0]._receive = late
    began = time.monotonic()
    with pytest.raises(SyncError, match="did not reach the workers"):
        one.send(1)
    assert time.monotonic() - began < 4.0
