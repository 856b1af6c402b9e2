"""The learner's end of the weight stream: gather from ZeRO-3, pack, broadcast, verify, one version a time.

All learner ranks call `send`: gathering a partitioned parameter is a collective. Only rank 0 is in the workers'
group. When a worker fails half-way, rank 0 keeps running the gathers to the end and then tells the others, since a
rank that left early would leave the rest waiting in a collective.

The group has the workers whose engine answers before a sync; the others are left out, and join again when they answer.
"""

from __future__ import annotations

import sys
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rollout import stream
from rollout.checksum import StreamChecksum
from rollout.control import WorkerControl
from trainer.learner import distributed, zero
from trainer.learner.arrival import Arrival, require_arrival
from trainer.settings.sync import SyncConfig


@dataclass(frozen=True)
class SyncReport:
    """What one sync did. Seconds are rank 0's."""

    version: int
    bytes: int
    seconds: float
    gather_seconds: float
    workers: int  # that it reached
    arrived: float | None  # share of training's change that they have; None before anything has changed


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
    """Streams trained weights to a set of workers.

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
        self._engine, self._urls, self._config, self._min_workers = engine, list(urls), config, min_workers
        self._device = stream_device(config, own_gpus)
        # A worker's own waits end at timeout_s; a little more lets its reason arrive here.
        self.control = WorkerControl(urls, token, config.timeout_s + 10)
        self._tensors = list(engine.module.streamed())
        self._shapes = [zero.whole_shape(t.parameters[0]) for t in self._tensors]
        sizes = [stream.tensor_bytes(t.dtype, s) for t, s in zip(self._tensors, self._shapes, strict=True)]
        self._buckets = stream.plan_buckets(sizes, int(config.bucket_mib * 2**20))
        self._bytes = sum(sizes)
        self._store: Any = None
        self._group: Any = None
        self._prefix = ""
        self.members: list[str] = []
        self._arrival, self._workers_dtype = Arrival(engine.module.adapter_scale is not None), torch.float32
        self.checksum_failures = 0  # on rank 0

    def connect(self) -> None:
        """Make sure that rank 0 and all workers that answer are in one group. A collective.

        Raises:
            SyncError: too few workers answer, or one did not come within the deadline.
        """
        error = ""
        if distributed.is_first():
            try:
                self._connect()
            except Exception as failure:  # noqa: BLE001 - told to every rank below
                error = f"{type(failure).__name__}: {failure}"
        self._agree(error, "the learner and its workers could not meet")
        self.members = distributed.from_first(self.members)

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
        """Stream all trained weights; workers answer with `version` from then on. A collective.

        Raises:
            SyncError: on every rank, with rank 0's reason; the workers still have their old weights.
            ValueError: on every rank; the workers' type keeps less of training's change than `sync.min_arrived`.
        """
        started = time.monotonic()
        is_sender = distributed.is_first()
        error, updates, total, gathering = "", [], 0, 0.0
        pending: tuple[Any, Tensor] | None = None
        if is_sender:
            try:
                updates = self._announce(version)
            except Exception as failure:  # noqa: BLE001
                error = f"{type(failure).__name__}: {failure}"
        with StreamChecksum() as checksum:
            for number, bucket in enumerate(self._buckets):
                begun = time.monotonic()
                buffer = self._gather(bucket, wanted=is_sender and not error)
                gathering += time.monotonic() - begun
                if buffer is None:
                    continue
                try:
                    checksum.add(buffer)
                    self._raise_early(updates)
                    if pending is not None:
                        stream.finish(pending[0], self._config.timeout_s)
                    pending = (stream.start_broadcast(self._group, buffer, self._config.timeout_s), buffer)
                except Exception as failure:  # noqa: BLE001
                    error = f"bucket {number + 1} of {len(self._buckets)}: {type(failure).__name__}: {failure}"
            if is_sender and not error:
                try:
                    total = checksum.value()
                    self._conclude(version, total, pending, updates)
                except Exception as failure:  # noqa: BLE001
                    error = f"at the end of the stream: {type(failure).__name__}: {failure}"
        self._agree(error, f"weights of version {version} did not reach the workers")
        spent, arrived = time.monotonic() - started, self._arrived()
        return SyncReport(version, self._bytes, spent, gathering, len(self.members), arrived)

    def _arrived(self) -> float | None:
        share = distributed.from_first(self._arrival.share(self._workers_dtype))
        dtype = distributed.from_first(str(self._workers_dtype).removeprefix("torch."))
        require_arrival(share, self._config.min_arrived, self._tensors[0].dtype, getattr(torch, dtype))
        return share

    def close(self) -> None:
        """Leave the group and release the meeting point."""
        self._abort_group()
        self.control.close()
        self._store = None

    def _connect(self) -> None:
        answering = self.control.answering()
        self._report_changes(list(answering))
        if len(answering) < self._min_workers:
            raise RuntimeError(
                f"{len(answering)} of {len(self._urls)} rollout workers answer, fewer than "
                f"rollout.min_workers={self._min_workers}"
            )
        together = all(prefix == self._prefix for prefixes in answering.values() for prefix in prefixes)
        if self._group is not None and together and list(answering) == self.members:
            return
        self._abort_group()
        self.members = list(answering)
        self._join({url: len(prefixes) for url, prefixes in answering.items()})

    def _join(self, sizes: dict[str, int]) -> None:
        """Make a group of rank 0 and the processes of the workers, whose numbers `sizes` gives."""
        config, host = self._config, distributed.own_address(self._config.host)
        if self._store is None:
            self._store = stream.host_store(host, config.port, config.timeout_s)
        prefix, world = f"weights/{uuid.uuid4().hex}", 1 + sum(sizes.values())
        places: dict[int, str] = {}
        joining: list[Future[Any]] = []
        for url, size in sizes.items():
            first = 1 + len(places)
            places |= dict.fromkeys(range(first, first + size), url)
            info = {
                "host": host,
                "port": self._store.port,
                "prefix": prefix,
                "first_rank": first,
                "world_size": world,
                "timeout_s": config.timeout_s,
                "bucket_bytes": int(config.bucket_mib * 2**20),
                "adapters": self._engine.module.adapter_scale is not None,
                "device": self._device.type,
            }
            joining.append(self.control.begin(url, "init_weight_transfer_engine", {"init_info": info}))

        def check() -> None:
            for future in joining:
                if future.done():
                    future.result()

        try:
            self._group = stream.join_group(self._store, prefix, 0, world, config.timeout_s, self._device, check)
        except stream.PeersMissing as missing:
            absent = ", ".join(dict.fromkeys(places[rank] for rank in missing.ranks))
            raise RuntimeError(f"{absent} did not join within sync.timeout_s={config.timeout_s:g} s") from None
        for future in joining:
            future.result(timeout=config.timeout_s)
        self._prefix = prefix

    def _report_changes(self, answering: list[str]) -> None:
        """Say who has gone or come back since the last group was made."""
        before = self.members or self._urls
        for urls, words in (
            ([url for url in before if url not in answering], "does not answer; going on without it"),
            ([url for url in answering if url not in before], "is back"),
        ):
            for url in urls:
                count = f"{len(answering)} of {len(self._urls)} rollout workers"
                print(f"\n  rollout worker {url} {words} ({count})", file=sys.stderr, flush=True)

    def _announce(self, version: int) -> list[Future[Any]]:
        if self._group is None:
            raise RuntimeError("no transfer group; connect first")
        self.control.pause(self.members)
        self.control.on_all(self.members, "start_weight_update")
        update = {
            "names": [tensor.name for tensor in self._tensors],
            "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in self._tensors],
            "shapes": [list(shape) for shape in self._shapes],
            "version": version,
            "adapter_scale": self._engine.module.adapter_scale or 0.0,
        }
        return [self.control.begin(url, "update_weights", {"update_info": update}) for url in self.members]

    def _gather(self, bucket: stream.Bucket, wanted: bool) -> Tensor | None:
        """A bucket's parameters made whole, packed on rank 0. Every rank, every bucket, whatever happened before."""
        tensors = [self._tensors[slot.tensor] for slot in bucket.slots]
        with zero.gathered(self._engine, [p for tensor in tensors for p in tensor.parameters]):
            if not wanted:
                return None
            buffer = torch.empty(bucket.size, dtype=torch.uint8, device=self._device)
            for slot, tensor in zip(bucket.slots, tensors, strict=True):
                view = stream.view_slot(buffer, slot, tensor.dtype, self._shapes[slot.tensor])
                view.copy_(tensor.merge())
                self._arrival.look(slot.tensor, view)
            return buffer

    def _conclude(
        self, version: int, total: int, pending: tuple[Any, Tensor] | None, updates: list[Future[Any]]
    ) -> None:
        timeout = self._config.timeout_s
        if pending is not None:
            stream.finish(pending[0], timeout)
        trailer = torch.tensor([total], dtype=torch.int64, device=self._device)
        stream.finish(stream.start_broadcast(self._group, trailer, timeout), timeout)
        for update in updates:
            update.result(timeout=timeout)  # a worker whose checksum differs has raised
        self.control.on_all(self.members, "finish_weight_update", {"weight_version": str(version)})
        self.control.reset_prefix_cache(self.members)
        replies = self.control.on_all(self.members, "collective_rpc", {"method": "timepro_last_update"})
        for url, reply in zip(self.members, replies, strict=True):
            for report in reply["results"]:
                if report.get("version") != version or report.get("checksum") != total:
                    raise RuntimeError(f"worker {url} reports {report}, not version {version} checksum {total}")
                self._workers_dtype = getattr(torch, report["dtype"])
        self.control.resume(self.members)

    @staticmethod
    def _raise_early(updates: list[Future[Any]]) -> None:
        for update in updates:
            if update.done():
                update.result()
                raise RuntimeError("a worker said it was done before the stream ended")

    def _agree(self, error: str, what: str) -> None:
        """Tell every rank how rank 0 fared; raise the same error on all."""
        if not distributed.any_rank(bool(error)):
            return
        if distributed.is_first():
            self.checksum_failures += "checksum" in error
            self._abort_group()
            self.control.abort_update(self.members)
        raise SyncError(f"{what}: {error or 'see rank 0'}")

    def _abort_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.abort()
