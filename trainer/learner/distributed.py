"""The learner's ranks: how they meet, and the few things they say to each other.

A run's launcher starts the ranks and tells each its number and where to meet. The meeting point is a store that
listens on one configured address; torch's own launcher would listen on all of them. What ranks say is plain values:
numbers that are added up or compared, and what JSON can hold.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore

from rollout import stream
from timepro.system.network import is_loopback
from trainer.messages import ADDRESS, LOCAL_RANK, RANK, STORE_HOST, STORE_PORT, STORE_PREFIX, WORLD_SIZE

T = TypeVar("T")


def rank() -> int:
    """This rank's number."""
    return dist.get_rank()


def world_size() -> int:
    """How many ranks there are."""
    return dist.get_world_size()


def is_first() -> bool:
    """Whether this is rank 0, which speaks for all."""
    return rank() == 0


def say(text: str) -> None:
    """A line for the user, from rank 0 alone."""
    if is_first():
        print(f"  {text}", file=sys.stderr, flush=True)


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
        store=PrefixStore(os.environ.get(STORE_PREFIX, "learner"), store),
        rank=int(os.environ[RANK]),
        world_size=int(os.environ[WORLD_SIZE]),
        timeout=timedelta(seconds=timeout_s),
    )


def join_alone(timeout_s: float = 60.0) -> TCPStore:
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


def leave(code: int) -> NoReturn:
    """End this process, which has joined a group and whose work is done and on disk.

    Not by returning: while the interpreter is taken down, threads of gloo or OpenMP can outlive what they use, and the
    process then ends with SIGABRT ("terminate called without an active exception") after everything has succeeded.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    logging.shutdown()
    atexit._run_exitfuncs()  # what libraries have to tidy up: W&B's service, temporary files
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def total(value: float) -> float:
    """The sum over all ranks."""
    return totals({"": value})[""]


def totals(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over all ranks by name; every rank gives the same names in the same order."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(value: float) -> float:
    """The largest over all ranks."""
    return maxima({"": value})[""]


def maxima(values: Mapping[str, float]) -> dict[str, float]:
    """The largest over all ranks by name; every rank gives the same names in the same order."""
    return _reduced(values, dist.ReduceOp.MAX)


def any_rank(flag: bool) -> bool:
    """Whether any rank says so; the same answer on every rank."""
    return largest(float(flag)) > 0


def from_first(value: T) -> T:
    """Rank 0's value, on every rank; anything that JSON can hold (a tuple comes back as a list)."""
    data = _encoded(value) if is_first() else torch.empty(0, dtype=torch.uint8, device=device())
    size = torch.tensor([len(data)], device=device())
    dist.broadcast(size, 0)
    data = data if is_first() else torch.empty(int(size), dtype=torch.uint8, device=device())
    dist.broadcast(data, 0)
    return _decoded(data)


def from_every(value: T) -> list[T]:
    """Every rank's value, in the order of the ranks; anything that JSON can hold."""
    data = _encoded(value)
    sizes = [torch.empty(1, dtype=torch.int64, device=device()) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(data)], device=device()))
    width = max(int(size) for size in sizes)
    padded = torch.zeros(width, dtype=torch.uint8, device=device())
    padded[: len(data)] = data
    rows = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(rows, padded)
    return [_decoded(row[: int(size)]) for row, size in zip(rows, sizes, strict=True)]


def barrier() -> None:
    """Wait for all ranks (deadline: the group's)."""
    total(0.0)


def _reduced(values: Mapping[str, float], operation: Any) -> dict[str, float]:
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device())
    dist.all_reduce(tensor, operation)
    return dict(zip(values, tensor.tolist(), strict=True))


def _encoded(value: object) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device())


def _decoded(data: torch.Tensor) -> T:  # type: ignore[type-var]  # what came is what a rank gave
    return json.loads(bytes(data.cpu().numpy()))


class FailedTogether(ValueError):
    """What went wrong on one rank or several, raised on every rank."""


@contextmanager
def together(what: str) -> Iterator[None]:
    """Work of this rank's own, whose failure on one rank becomes one of all, so that none waits for it. A collective.

    Raises:
        FailedTogether: on every rank, with what the failing ranks said.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as failure:  # noqa: BLE001 - told to every rank, and raised again below
        error = failure
    said = from_every(f"{type(error).__name__}: {error}" if error else "")
    if any(said):
        why = "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(said) if text)
        raise FailedTogether(f"{what} failed: {why}") from error


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
        return int(largest(self.signal))
