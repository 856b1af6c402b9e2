"""The weight stream: what learner and workers must agree on. Needs torch only, so both sides can import it.

Weights travel as packed buckets of bytes, broadcast from the learner's rank 0 over a process group of their own. The
group stands beside both sides' default groups and touches neither; a new key prefix in the store makes a new group
after a failure. Every wait has a deadline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed import PrefixStore, ProcessGroup, TCPStore

from timepro.system.network import listening_socket

IN_FLIGHT = 3  # buckets under way at a time; each takes a bucket's memory on both sides
_LATER_S = 5.0  # rank 0, which knows whose the ranks are, is the first to miss one
_ALIGNMENT = 64  # bytes; every tensor in a bucket starts on a boundary that any dtype can be viewed at


@dataclass(frozen=True)
class Slot:
    """One tensor's place in a bucket: index into the stream's tensor list, offset and size in bytes."""

    tensor: int
    offset: int
    size: int


@dataclass(frozen=True)
class Bucket:
    """A packed buffer of `size` bytes and what lies in it."""

    size: int
    slots: tuple[Slot, ...]


def plan_buckets(sizes: Sequence[int], bucket_bytes: int) -> list[Bucket]:
    """Cut a stream of tensors into buckets, keeping its order.

    Args:
        sizes: bytes of each tensor.
        bucket_bytes: a bucket's limit; a tensor above it gets a bucket of its own.

    Raises:
        ValueError: a limit that is not positive.
    """
    if bucket_bytes <= 0:
        raise ValueError(f"sync.bucket_mib must be positive, got {bucket_bytes} bytes")
    buckets: list[Bucket] = []
    slots: list[Slot] = []
    end = 0
    for index, size in enumerate(sizes):
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        if slots and start + size > bucket_bytes:
            buckets.append(Bucket(end, tuple(slots)))
            slots, start = [], 0
        slots.append(Slot(index, start, size))
        end = start + size
    if slots:
        buckets.append(Bucket(end, tuple(slots)))
    return buckets


def tensor_bytes(dtype: torch.dtype, shape: Sequence[int]) -> int:
    """Bytes of a dense tensor."""
    return torch.Size(shape).numel() * dtype.itemsize


def view_slot(buffer: Tensor, slot: Slot, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """A tensor's view of its bytes in a bucket."""
    return buffer[slot.offset : slot.offset + slot.size].view(dtype).view(tuple(shape))


def host_store(host: str, port: int, timeout_s: float) -> TCPStore:
    """Open a store that this process owns, listening on `host` alone.

    Args:
        port: 0 for a free one (`store.port` tells which).
    """
    sock = listening_socket(host, port)
    return TCPStore(
        host,
        sock.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=sock.detach(),  # the store closes it
    )


def join_store(host: str, port: int, timeout_s: float) -> TCPStore:
    """Connect to a store that another process owns."""
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout_s))


class PeersMissing(RuntimeError):
    """Peers did not come to the rendezvous in time."""

    def __init__(self, ranks: list[int], timeout_s: float) -> None:
        super().__init__(f"ranks {ranks} of the transfer group did not come within {timeout_s:g} s")
        self.ranks = ranks


def join_group(
    store: TCPStore,
    prefix: str,
    rank: int,
    world_size: int,
    timeout_s: float,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> ProcessGroup:
    """Make a process group that no default group knows of: gloo on a CPU, NCCL on a GPU.

    Args:
        prefix: fresh for every group, so that remains of a broken one are never read.
        timeout_s: deadline of the rendezvous and of every later operation.
        check: called again and again while peers are missing; what it raises ends the wait.

    Raises:
        PeersMissing: not all peers came in time.
    """
    timeout = timedelta(seconds=timeout_s)
    scoped = PrefixStore(prefix, store)
    _meet(scoped, rank, world_size, timeout_s, check)
    group = ProcessGroup(scoped, rank, world_size)
    if device.type == "cpu":
        from torch.distributed import ProcessGroupGloo

        backend: Any = ProcessGroupGloo(scoped, rank, world_size, timeout)
        kind = ProcessGroup.BackendType.GLOO
    else:
        from torch.distributed import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        options._timeout = timeout
        with _errors_raise_in_wait():
            backend = ProcessGroupNCCL(scoped, rank, world_size, options)
        backend.eager_connect_single_device(device)
        kind = ProcessGroup.BackendType.NCCL
    backend._set_sequence_number_for_group()
    group._set_default_backend(kind)
    group._register_backend(torch.device(device.type), kind, backend)
    return group


def _meet(store: PrefixStore, rank: int, world_size: int, timeout_s: float, check: Callable[[], None]) -> None:
    """Wait in the store until everybody is there: NCCL's own rendezvous has no deadline."""
    store.set(f"here/{rank}", "1")
    limit_s = timeout_s + (_LATER_S if rank else 0.0)
    missing, deadline = list(range(world_size)), time.monotonic() + limit_s
    while missing := [peer for peer in missing if not store.check([f"here/{peer}"])]:
        check()
        if time.monotonic() > deadline:
            raise PeersMissing(missing, limit_s)
        time.sleep(0.02)


@contextmanager
def _errors_raise_in_wait() -> Iterator[None]:
    """Within this context an NCCL group is made whose failures are raised by `wait`.

    By default a watchdog thread of the group ends the whole process on a failure or a timeout, which would take the
    learner or a worker with it. torch reads these settings while it makes a group and offers them nowhere else; the
    groups of DeepSpeed and vLLM keep theirs.
    """
    settings = {
        "TORCH_NCCL_BLOCKING_WAIT": "1",  # `wait` blocks up to its deadline, aborts and raises; no watchdog is started
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
        "TORCH_NCCL_ENABLE_MONITORING": "0",  # else a second thread misses the first one's heartbeat
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def start_broadcast(group: ProcessGroup, tensor: Tensor, timeout_s: float) -> Any:
    """Begin a broadcast from rank 0; returns its work handle, to be given to `finish`."""
    options = torch._C._distributed_c10d.BroadcastOptions()
    options.rootRank = 0
    options.rootTensor = 0
    options.timeout = timedelta(seconds=timeout_s)
    options.asyncOp = True
    return group.broadcast([tensor], options)


def finish(work: Any, timeout_s: float) -> None:
    """Wait for a broadcast.

    Raises:
        RuntimeError: a peer is gone, or the deadline has passed.
    """
    work.wait(timedelta(seconds=timeout_s))
