"""The learner's end of the weight stream: gather from ZeRO-3, send whole or as a delta, verify, one version a time.

All learner ranks call `send`: gathering a partitioned parameter is a collective, and so is gathering changes. Only rank
0 is in the workers' group. When a worker fails half-way, rank 0 keeps running the gathers to the end and then tells the
others, since a rank that left early would leave the rest waiting in a collective.

A delta follows only where every worker in the group has the version before it and this learner sent that one; after any
doubt the weights go whole.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rollout import stream
from rollout.buffers import Buffers
from rollout.control import WorkerControl
from rollout.delta import state_checksum
from trainer.learner import distributed, zero
from trainer.learner.arrival import Arrival, require_arrival
from trainer.learner.last_sent import Changes, LastSent
from trainer.learner.meeting import Meeting
from trainer.learner.transmission import Transmission
from trainer.settings.sync import SyncConfig


@dataclass(frozen=True)
class SyncReport:
    """What one sync did. Seconds are rank 0's."""

    version: int
    bytes: int  # that each worker received
    seconds: float
    gather_seconds: float  # of finding and gathering what was sent
    workers: int  # that it reached
    arrived: float | None  # share of training's change that they have; None before anything has changed
    mode: str  # dense, delta or adapters
    paused_seconds: float  # while the workers did not generate


@dataclass(frozen=True)
class _Delta:
    """What has changed since the version `base`: on this rank, and over all of them."""

    base: int
    own: Changes
    bytes: list[int]  # of each rank's part
    state: int  # the checksum of all weights as they are now
    numbers: int  # that have changed


def stream_device(config: SyncConfig, own_gpus: bool) -> torch.device:
    """Where the stream's buffers lie: on this rank's GPU for NCCL, in memory for gloo.

    Raises:
        ValueError: an unknown transport, or NCCL where it cannot work.
    """
    config.check()
    where = distributed.device()
    if config.transport == "nccl" and not (own_gpus and where.type == "cuda"):
        raise ValueError("sync.transport=nccl needs GPUs of their own: set learner.gpus and rollout.gpus apart")
    return where if config.transport != "gloo" and own_gpus and where.type == "cuda" else torch.device("cpu")


class SyncError(RuntimeError):
    """A sync failed; the workers have put their old weights back."""


class WeightSender:
    """Sends trained weights to a set of workers.

    Args:
        engine: the ZeRO-3 engine around the policy.
        urls, token: the workers.
        own_gpus: workers and learner do not share a card (NCCL refuses two ranks on one).
        min_workers: a sync with fewer of them fails.

    Attributes:
        members: the workers in the group, on every rank: those that have the weights of the last sync.
    """

    def __init__(
        self, engine: Any, urls: list[str], token: str, config: SyncConfig, own_gpus: bool, min_workers: int = 1
    ) -> None:
        self._engine, self._config = engine, config
        self._device = stream_device(config, own_gpus)
        # A worker's own waits end at timeout_s; a little more lets its reason arrive here.
        self.control = WorkerControl(urls, token, config.timeout_s + 10)
        adapters = engine.module.adapter_scale is not None
        self._meeting = Meeting(urls, self.control, config, self._device, adapters, min_workers)
        self._tensors = list(engine.module.streamed())
        self._shapes = [zero.whole_shape(t.parameters[0]) for t in self._tensors]
        sizes = [stream.tensor_bytes(t.dtype, s) for t, s in zip(self._tensors, self._shapes, strict=True)]
        self._buckets = stream.plan_buckets(sizes, int(config.bucket_mib * 2**20))
        self._bytes = sum(sizes)
        usual = min(int(config.bucket_mib * 2**20), max(bucket.size for bucket in self._buckets))
        self._buffers = Buffers(self._device, usual)
        self.members: list[str] = []
        self._mode = config.resolved_mode(adapters, str(self._tensors[0].dtype).removeprefix("torch."))
        if self._mode == "delta" and not all(zero.shares_equally(t.parameters[0]) for t in self._tensors):
            if config.mode == "delta":
                raise ValueError(
                    "sync.mode=delta needs ZeRO-3's plain slices, an equal share of each parameter in every rank's "
                    "memory; leave zero.extra alone, or set sync.mode=dense"
                )
            self._mode = "dense"
        self._last_sent = LastSent([t.parameters[0] for t in self._tensors]) if self._mode == "delta" else None
        self._sent_version: int | None = None  # that `_last_sent` holds; None after any doubt
        self._workers_version: int | None = None  # that all workers in the group have
        self._why_whole = ""
        self._arrival, self._workers_dtype = Arrival(adapters), torch.float32
        self.checksum_failures = 0  # on rank 0

    def connect(self) -> None:
        """Make sure that rank 0 and all workers that answer are in one group. A collective.

        Raises:
            SyncError: too few workers answer, or one did not come within the deadline.
        """
        error = ""
        if distributed.is_first():
            try:
                self._meeting.connect()
            except Exception as failure:  # noqa: BLE001 - told to every rank below
                error = f"{type(failure).__name__}: {failure}"
        self._agree(error, "the learner and its workers could not meet")
        self.members = distributed.from_first(self._meeting.members)
        self._workers_version = distributed.from_first(self._meeting.version)

    def deliver(self, version: int) -> SyncReport:
        """`connect` and `send`, tried again where they failed. A collective.

        Raises:
            SyncError: the last attempt failed too.
        """
        for attempt in range(self._config.retries + 1):
            try:
                self.connect()
                return self.send(version)
            except SyncError as error:
                if attempt == self._config.retries:
                    raise
                distributed.say(f"{error}; trying again")
        raise AssertionError("unreachable: the loop returns or raises")

    def send(self, version: int) -> SyncReport:
        """Send all trained weights, or what has changed; workers answer with `version` from then on. A collective.

        Raises:
            SyncError: on every rank, with rank 0's reason.
            ValueError: on every rank; the workers' type keeps less of training's change than `sync.min_arrived`.
        """
        started = time.monotonic()
        delta = self._delta()
        looked_s = time.monotonic() - started
        line: AbstractContextManager[Transmission | None] = nullcontext()
        if distributed.is_first():
            line = Transmission(self._meeting, version, self._config.timeout_s)
        with line as opened:
            gathered_s = self._send_whole(opened) if delta is None else self._send_delta(opened, delta)
        error, reports, paused_s = (opened.error, opened.reports, opened.paused_s) if opened else ("", [], 0.0)
        self._agree(error, f"weights of version {version} did not reach the workers")
        mode = "delta" if delta is not None else "dense" if self._mode == "delta" else self._mode
        self._remember(version, delta, reports)
        return SyncReport(
            version, self._bytes if delta is None else sum(delta.bytes), time.monotonic() - started,
            looked_s + gathered_s, len(self.members), self._arrived(delta), mode, paused_s,
        )  # fmt: skip

    def close(self) -> None:
        """Leave the group and release the meeting point."""
        self._meeting.close()
        self.control.close()

    def _delta(self) -> _Delta | None:
        """What has changed since the version that all workers have; None: the weights go whole. A collective."""
        base = self._sent_version
        if self._last_sent is None or base is None or self._workers_version != base:
            return None
        own = self._last_sent.changes()
        of_ranks = distributed.from_every([own.part.numel(), own.checksum, own.numbers] if own is not None else None)
        if own is None or None in of_ranks:
            return None
        n_bytes, checksums, numbers = zip(*of_ranks, strict=True)
        return _Delta(base, own, list(n_bytes), state_checksum(checksums), sum(numbers))

    def _send_whole(self, line: Transmission | None) -> float:
        """Returns the seconds of gathering."""
        gathering_s = 0.0
        if line is not None:
            self._announce(line, {"adapter_scale": self._engine.module.adapter_scale or 0.0})
        for number, bucket in enumerate(self._buckets):
            begun = time.monotonic()
            buffer = self._gather(bucket, wanted=line is not None and not line.error)
            gathering_s += time.monotonic() - begun
            if line is not None and buffer is not None:
                line.send(buffer, f"bucket {number + 1} of {len(self._buckets)}", self._buffers)
        if line is not None:
            line.end()
        return gathering_s

    def _send_delta(self, line: Transmission | None, delta: _Delta) -> float:
        """Returns the seconds of gathering. Rank 0 has one rank's part in memory at a time, and those under way."""
        if line is None:
            dist.send(delta.own.part, 0)
            return 0.0
        self._announce(line, {"base_version": delta.base, "part_bytes": delta.bytes})
        gathering_s = 0.0
        for rank, size in enumerate(delta.bytes):
            begun, part = time.monotonic(), delta.own.part
            if rank:
                part = torch.empty(size, dtype=torch.uint8, device=part.device)
                dist.recv(part, rank)
            gathering_s += time.monotonic() - begun
            line.send(part.to(self._device), f"part {rank + 1} of {len(delta.bytes)}")
        line.end(delta.state)
        return gathering_s

    def _announce(self, line: Transmission, more: dict[str, Any]) -> None:
        line.announce(
            {
                "names": [tensor.name for tensor in self._tensors],
                "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in self._tensors],
                "shapes": [list(shape) for shape in self._shapes],
                **more,
            }
        )

    def _remember(self, version: int, delta: _Delta | None, reports: list[dict[str, Any]]) -> None:
        """What the workers have now, where a delta may follow. A collective."""
        dtypes = {report["dtype"] for report in reports}
        if dtypes:
            self._workers_dtype = getattr(torch, dtypes.pop())
        if self._last_sent is None:
            return
        if delta is not None:
            self._last_sent.accept(delta.own)
        elif can_follow := distributed.from_first(self._deltas_can_follow(reports)):
            self._last_sent.take()
        self._sent_version = version if delta is not None or can_follow else None

    def _deltas_can_follow(self, reports: list[dict[str, Any]]) -> bool:
        """Whether the workers take deltas, after a whole stream; says once why not. On rank 0."""
        assert self._last_sent is not None, "asked for deltas alone"
        own = {"dtype": str(self._tensors[0].dtype).removeprefix("torch."), "device": self._last_sent.device.type}
        reasons = [report["whole_only"] for report in reports if report["whole_only"]]
        reasons += [
            f"workers keep {report[key]} and the learner sends {own[key]}"
            for report in reports for key in own if report[key] != own[key]
        ]  # fmt: skip
        if reasons and reasons[0] != self._why_whole:
            self._why_whole = reasons[0]
            distributed.say(f"weights go whole at every sync, no deltas (sync.mode): {reasons[0]}")
        return not reasons

    def _arrived(self, delta: _Delta | None) -> float | None:
        """Of a delta's numbers the workers have the very bits; the whole streams' are looked at."""
        if delta is not None:
            return 1.0 if delta.numbers else None
        share = distributed.from_first(self._arrival.share(self._workers_dtype))
        dtype = distributed.from_first(str(self._workers_dtype).removeprefix("torch."))
        require_arrival(share, self._config.min_arrived, self._tensors[0].dtype, getattr(torch, dtype))
        return share

    def _gather(self, bucket: stream.Bucket, wanted: bool) -> Tensor | None:
        """A bucket's parameters made whole, packed on rank 0. Every rank, every bucket, whatever happened before."""
        tensors = [self._tensors[slot.tensor] for slot in bucket.slots]
        with zero.gathered(self._engine, [p for tensor in tensors for p in tensor.parameters]):
            if not wanted:
                return None
            buffer = self._buffers.take(bucket.size)
            for slot, tensor in zip(bucket.slots, tensors, strict=True):
                view = stream.view_slot(buffer, slot, tensor.dtype, self._shapes[slot.tensor])
                view.copy_(tensor.merge())
                self._arrival.look(slot.tensor, view)
            return buffer

    def _agree(self, error: str, what: str) -> None:
        """Tell every rank how rank 0 fared; raise the same error on all."""
        if not distributed.any_rank(bool(error)):
            return
        self._sent_version = None
        if distributed.is_first():
            self.checksum_failures += "checksum" in error
            self._meeting.abort()
            self.control.abort_update(self._meeting.members)
        raise SyncError(f"{what}: {error or 'see rank 0'}")
