"""Which worker gets which prompt: the ranks together load all workers alike, though none sees the others' requests."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
from collections import Counter

import pytest

from rollout.client import AnswerGroup, Prompt, RolloutPool, Sampling, choose_worker
from trainer.learner.order import share

SHAPES = [(4, 4, 40), (8, 8, 40), (32, 32, 64), (8, 56, 40)]  # the first two: base/eight_gpus, base/two_nodes
WORKERS = (1, 2, 3, 4, 7, 8, 12, 31, 32, 64)


def simulate(ranks, workers, prompts, max_in_flight=64, seconds=None):
    """Prompts a worker, in all and the most at a time, where every rank chooses by its own requests alone.

    Args:
        seconds: how long a request takes; None: all of them outlast the giving out, up to `max_in_flight` a rank.
    """
    urls = [f"http://w{i}" for i in range(workers)]
    served, now, most = Counter(), Counter(), Counter()
    loads = [Counter() for _ in range(ranks)]
    waiting = [[r + k * ranks for k in range(len(share(list(range(prompts)), r, ranks)))] for r in range(ranks)]
    busy, clock, order = [], 0.0, itertools.count()

    def begin(rank):
        if not waiting[rank]:
            return
        url = choose_worker(urls, loads[rank], waiting[rank].pop(0))
        loads[rank][url] += 1
        served[url] += 1
        now[url] += 1
        most[url] = max(most[url], now[url])
        heapq.heappush(busy, (clock + (seconds(url) if seconds else 1.0), next(order), rank, url))

    for _ in range(max_in_flight):
        for rank in range(ranks):
            begin(rank)
    while busy:
        clock, _, rank, url = heapq.heappop(busy)
        loads[rank][url] -= 1
        now[url] -= 1
        begin(rank)
    return [served[u] for u in urls], [most[u] for u in urls]


def fair(prompts, workers):
    """The most that the busiest worker may get: 1.25 times the mean, or what no other division can better."""
    return max(1.25 * prompts / workers, math.ceil(prompts / workers))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8, 16, 32])
def test_the_ranks_together_load_all_workers_alike(ranks):
    others = [(ranks, w, p) for w in WORKERS for p in (ranks, 2 * ranks + 1, 40, 64, 100, 1000) if p >= ranks]
    for shape in [*others, *(shape for shape in SHAPES if shape[0] == ranks)]:
        _, workers, prompts = shape
        served, most = simulate(*shape)
        assert sum(served) == prompts
        assert max(served) <= fair(prompts, workers), (shape, served)
        assert max(most) <= fair(prompts, workers), (shape, most)


def test_numbers_of_the_global_batch_are_each_given_once():
    for ranks, prompts in ((1, 5), (3, 10), (8, 40), (7, 40), (32, 64)):
        numbers = [
            r + k * ranks for r in range(ranks) for k in range(len(share(list(range(prompts)), r, ranks)))
        ]  # as the pool numbers them
        assert sorted(numbers) == list(range(prompts))


@pytest.mark.parametrize(("ranks", "workers", "in_flight"), [(8, 8, 4), (8, 8, 16), (3, 8, 8), (32, 12, 36)])
def test_answers_of_any_length_pile_up_nowhere(ranks, workers, in_flight):
    for seed in range(10):
        draw = random.Random(seed)
        _, most = simulate(ranks, workers, 50 * ranks, in_flight, seconds=lambda url, d=draw: d.expovariate(1.0))
        assert max(most) <= fair(ranks * in_flight, workers), (seed, most)


def test_a_slow_worker_gets_less():
    served, _ = simulate(4, 4, 400, max_in_flight=8, seconds=lambda url: 4.0 if url == "http://w2" else 1.0)
    assert served[2] < 0.5 * max(served)


def test_failed_workers_are_asked_last_and_tried_ones_not_at_all():
    urls = ["a", "b", "c"]
    assert choose_worker(urls, {"a": 0, "b": 5, "c": 9}, 0, failed={"a"}) == "b"
    assert choose_worker(urls, {"a": 0, "b": 5, "c": 9}, 0, failed={"a"}, tried={"b", "c"}) == "a"
    assert choose_worker(urls, {"a": 0, "b": 0, "c": 0}, 5) == "c"


def pools_share_out(ranks, workers, prompts):
    """The pool itself, its request replaced: requests a worker."""
    urls, served = [f"http://w{i}" for i in range(workers)], Counter()

    async def answer(url, prompt, sampling):
        served[url] += 1
        await asyncio.sleep(0.01)
        return AnswerGroup(prompt.id, [], [], url, 0.0)

    for rank in range(ranks):
        pool = RolloutPool(urls, "token", rank=rank, ranks=ranks)
        pool._request = answer
        mine = share(list(range(prompts)), rank, ranks)
        pool.generate([Prompt(str(i), [1], b"") for i in mine], Sampling(4, 1.0, 8, (1,)))
        pool.close()
    return [served[url] for url in urls]


@pytest.mark.parametrize(("ranks", "workers", "prompts"), SHAPES)
def test_pools_share_out_a_batch_as_simulated(ranks, workers, prompts):
    assert pools_share_out(ranks, workers, prompts) == simulate(ranks, workers, prompts)[0]


def test_a_dead_worker_costs_no_group_its_attempts():
    """Three of eight workers are gone, more than a group has attempts: each is asked once, then the others alone."""
    urls, asked = [f"http://w{i}" for i in range(8)], Counter()
    gone = set(urls[:3])

    async def answer(url, prompt, sampling):
        asked[url] += 1
        if url in gone:
            await asyncio.sleep(0.001)
            raise TimeoutError("gone")
        await asyncio.sleep(0.01)
        return AnswerGroup(prompt.id, [], [], url, 0.0)

    pool = RolloutPool(urls, "token", retries=2, max_in_flight=4)
    pool._request = answer
    groups = pool.generate([Prompt(str(i), [1], b"") for i in range(40)], Sampling(4, 1.0, 8, (1,)))
    assert len(groups) == 40 and not {group.worker for group in groups} & gone
    assert sum(asked[url] for url in gone) <= 4
    pool.use(urls[3:])
    pool.generate([Prompt(str(i), [1], b"") for i in range(40)], Sampling(4, 1.0, 8, (1,)))
    assert sum(asked[url] for url in gone) <= 4
    pool.close()
