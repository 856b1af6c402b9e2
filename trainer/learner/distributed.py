"""The learner's ranks: how they meet, and the few things they say to each other.

A run's launcher starts the ranks and tells each its number and where to meet. The meeting point is a store that
listens on one configured address; torch's own launcher would listen on all of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from rollout import stream
from timepro.system.network import is_loopback
from trainer.messages import ADDRESS, LOCAL_RANK, RANK, STORE_HOST, STORE_PORT, STORE_PREFIX, WORLD_SIZE


def rank() -> int:
    return dist.get_rank()


def world_size() -> int:
    return dist.get_world_size()


def device() -> torch.device:
    """Where this rank computes."""
    from timepro.system.device import on_gpu

    return torch.device("cuda", int(os.environ.get(LOCAL_RANK, "0"))) if on_gpu() else torch.device("cpu")


def own_address(configured: str) -> str:
    """Where this rank listens: as configured, but on its node's own address where loopback would reach nobody."""
    own = os.environ.get(ADDRESS, "127.0.0.1")
    return own if is_loopback(configured) and not is_loopback(own) else configured


def join(timeout_s: float) -> None:
    """Join the learner's process group.

    Args:
        timeout_s: deadline of the meeting and of every collective.

    Raises:
        RuntimeError: the environment does not say where to meet, or not everybody came.
    """
    missing = [name for name in (RANK, WORLD_SIZE, STORE_HOST, STORE_PORT) if name not in os.environ]
    if missing:
        raise RuntimeError(f"this process was not started as a learner rank: {', '.join(missing)} not set")
    store = stream.join_store(os.environ[STORE_HOST], int(os.environ[STORE_PORT]), timeout_s)
    where = device()
    if where.type == "cuda":
        torch.cuda.set_device(where)
    dist.init_process_group(
        "nccl" if where.type == "cuda" else "gloo",
        store=stream.PrefixStore(os.environ.get(STORE_PREFIX, "learner"), store),
        rank=int(os.environ[RANK]),
        world_size=int(os.environ[WORLD_SIZE]),
        timeout=timedelta(seconds=timeout_s),
    )


def join_alone(timeout_s: float = 60.0) -> stream.TCPStore:
    """Form a process group of this process alone: for tools that use the learner without a launcher.

    Returns:
        the group's meeting point, on loopback; the group lives as long as it does.
    """
    store = stream.host_store("127.0.0.1", 0, timeout_s)
    os.environ |= {RANK: "0", WORLD_SIZE: "1", LOCAL_RANK: "0", STORE_HOST: "127.0.0.1", STORE_PORT: str(store.port)}
    if device().type == "cpu":
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu"}
    join(timeout_s)
    return store


def total(values: Sequence[float]) -> list[float]:
    """Element-wise sums over all ranks."""
    return _reduce(values, dist.ReduceOp.SUM)


def largest(values: Sequence[float]) -> list[float]:
    """Element-wise maxima over all ranks."""
    return _reduce(values, dist.ReduceOp.MAX)


def from_first(values: Sequence[float]) -> list[float]:
    """Rank 0's values, on every rank."""
    tensor = torch.tensor(list(values), dtype=torch.float64, device=device())
    dist.broadcast(tensor, 0)
    return tensor.tolist()


def from_every(values: Sequence[float]) -> list[float]:
    """All ranks' values joined in the order of the ranks; each gives as many."""
    places = [0.0] * (len(values) * world_size())
    places[rank() * len(values) : (rank() + 1) * len(values)] = values
    return total(places)


def barrier() -> None:
    """Wait for all ranks (deadline: the group's)."""
    total([0.0])


def _reduce(values: Sequence[float], operation: dist.ReduceOp) -> list[float]:
    tensor = torch.tensor(list(values), dtype=torch.float64, device=device())
    dist.all_reduce(tensor, operation)
    return tensor.tolist()


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag that the loop reads between steps."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: object) -> None:
        self.signal = number

    def agreed(self) -> int:
        """The signal that any rank got, or 0; the same answer on every rank."""
        return int(largest([self.signal])[0])
