"""The learner's end of the weight stream: gather from ZeRO-3, pack, broadcast, verify, one version a time.

All learner ranks call `send`: gathering a partitioned parameter is a collective. Only rank 0 is in the workers'
group. When a worker fails half-way, rank 0 keeps running the gathers to the end and then tells the others, since a
rank that left early would leave the rest waiting in a collective.
"""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests
import torch
from torch import Tensor

from rollout import stream
from trainer.learner import distributed, zero
from trainer.settings.sync import SyncConfig


@dataclass(frozen=True)
class SyncReport:
    """What one sync did. Seconds are rank 0's."""

    version: int
    bytes: int
    buckets: int
    checksum: int
    seconds: float
    gather_seconds: float


def stream_device(config: SyncConfig, own_gpus: bool) -> torch.device:
    """Where the stream's buffers lie: on this rank's GPU for NCCL, in memory for gloo.

    Raises:
        ValueError: an unknown transport, or NCCL where it cannot work.
    """
    where = distributed.device()
    if config.transport not in ("auto", "gloo", "nccl"):
        raise ValueError(f"sync.transport is {config.transport!r}; it must be auto, gloo or nccl")
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
    """

    def __init__(self, engine: Any, urls: list[str], token: str, config: SyncConfig, own_gpus: bool) -> None:
        self._engine, self._urls, self._config = engine, list(urls), config
        self._device = stream_device(config, own_gpus)
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._pool = ThreadPoolExecutor(max_workers=max(4, 2 * len(urls)))
        self._tensors = list(engine.module.streamed())
        self._shapes = [zero.whole_shape(t.parameters[0]) for t in self._tensors]
        sizes = [stream.tensor_bytes(t.dtype, s) for t, s in zip(self._tensors, self._shapes, strict=True)]
        self._buckets = stream.plan_buckets(sizes, int(config.bucket_mib * 2**20))
        self._bytes = sum(sizes)
        self._store: Any = None
        self._group: Any = None
        self.checksum_failures = 0  # on rank 0

    def connect(self) -> None:
        """Rank 0 meets the workers in a fresh group; the other ranks do nothing here.

        Raises:
            SyncError: a worker did not come within the deadline.
        """
        error = ""
        if distributed.rank() == 0:
            try:
                self._connect()
            except Exception as failure:  # noqa: BLE001 - told to every rank below
                error = f"{type(failure).__name__}: {failure}"
        self._agree(error, "the learner and its workers could not meet")

    def deliver(self, version: int) -> SyncReport:
        """`send`, tried again over a new group where it failed. A collective.

        Raises:
            SyncError: the last attempt failed too.
        """
        for attempt in range(self._config.retries + 1):
            try:
                if attempt:
                    self.connect()
                return self.send(version)
            except SyncError as error:
                if attempt == self._config.retries:
                    raise
                if distributed.rank() == 0:
                    print(f"  {error}; trying again", file=sys.stderr, flush=True)
        raise AssertionError("unreachable: the loop returns or raises")

    def send(self, version: int) -> SyncReport:
        """Stream all trained weights; workers answer with `version` from then on. A collective.

        Raises:
            SyncError: on every rank, with rank 0's reason; the workers still have their old weights.
        """
        started = time.monotonic()
        is_sender = distributed.rank() == 0
        error, updates, running, gathering = "", [], 0, 0.0
        pending: tuple[Any, Tensor] | None = None
        if is_sender:
            try:
                updates = self._announce(version)
            except Exception as failure:  # noqa: BLE001
                error = f"{type(failure).__name__}: {failure}"
        for number, bucket in enumerate(self._buckets):
            begun = time.monotonic()
            buffer = self._gather(bucket, wanted=is_sender and not error)
            gathering += time.monotonic() - begun
            if buffer is None:
                continue
            try:
                running = stream.checksum(buffer, running)
                self._raise_early(updates)
                if pending is not None:
                    stream.finish(pending[0], self._config.timeout_s)
                pending = (stream.start_broadcast(self._group, buffer, self._config.timeout_s), buffer)
            except Exception as failure:  # noqa: BLE001
                error = f"bucket {number + 1} of {len(self._buckets)}: {type(failure).__name__}: {failure}"
        if is_sender and not error:
            try:
                self._conclude(version, running, pending, updates)
            except Exception as failure:  # noqa: BLE001
                error = f"at the end of the stream: {type(failure).__name__}: {failure}"
        self._agree(error, f"weights of version {version} did not reach the workers")
        return SyncReport(version, self._bytes, len(self._buckets), running, time.monotonic() - started, gathering)

    def close(self) -> None:
        """Leave the group and release the meeting point."""
        self._abort_group()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()
        self._store = None

    def _connect(self) -> None:
        config, host = self._config, distributed.own_address(self._config.host)
        self._abort_group()
        if self._store is None:
            self._store = stream.host_store(host, config.port, config.timeout_s)
        sizes = [int(self._get(url, "get_world_size")["world_size"]) for url in self._urls]
        prefix, world, first = f"weights/{uuid.uuid4().hex}", 1 + sum(sizes), 1
        joining: list[Future[Any]] = []
        for url, size in zip(self._urls, sizes, strict=True):
            info = {
                "host": host,
                "port": self._store.port,
                "prefix": prefix,
                "first_rank": first,
                "world_size": world,
                "timeout_s": config.timeout_s,
                "bucket_bytes": int(config.bucket_mib * 2**20),
                "device": self._device.type,
            }
            joining.append(self._pool.submit(self._post, url, "init_weight_transfer_engine", {"init_info": info}))
            first += size
        self._group = stream.join_group(self._store, prefix, 0, world, config.timeout_s, self._device)
        for future in joining:
            future.result(timeout=config.timeout_s)

    def _announce(self, version: int) -> list[Future[Any]]:
        if self._group is None:
            raise RuntimeError("no transfer group; connect first")
        self._on_all("start_weight_update", None)
        update = {
            "names": [tensor.name for tensor in self._tensors],
            "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in self._tensors],
            "shapes": [list(shape) for shape in self._shapes],
            "version": version,
        }
        return [self._pool.submit(self._post, url, "update_weights", {"update_info": update}) for url in self._urls]

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
            return buffer

    def _conclude(
        self, version: int, running: int, pending: tuple[Any, Tensor] | None, updates: list[Future[Any]]
    ) -> None:
        timeout = self._config.timeout_s
        if pending is not None:
            stream.finish(pending[0], timeout)
        trailer = torch.tensor([running], dtype=torch.int64, device=self._device)
        stream.finish(stream.start_broadcast(self._group, trailer, timeout), timeout)
        for update in updates:
            update.result(timeout=timeout)  # a worker whose checksum differs has raised
        self._on_all("finish_weight_update", {"weight_version": str(version)})
        # Both hold activations of the old weights.
        self._on_all("reset_prefix_cache", None)
        self._on_all("reset_encoder_cache", None)
        for url in self._urls:
            for report in self._post(url, "collective_rpc", {"method": "timepro_last_update"})["results"]:
                if report.get("version") != version or report.get("checksum") != running:
                    raise RuntimeError(f"worker {url} reports {report}, not version {version} checksum {running}")

    @staticmethod
    def _raise_early(updates: list[Future[Any]]) -> None:
        for update in updates:
            if update.done():
                update.result()
                raise RuntimeError("a worker said it was done before the stream ended")

    def _agree(self, error: str, what: str) -> None:
        """Tell every rank how rank 0 fared; raise the same error on all."""
        if not distributed.largest([bool(error)])[0]:
            return
        if distributed.rank() == 0:
            self.checksum_failures += "checksum" in error
            self._abort_group()
            for url in self._urls:
                with contextlib.suppress(requests.RequestException, RuntimeError):
                    self._post(url, "collective_rpc", {"method": "timepro_abort_update", "timeout": 10})
        raise SyncError(f"{what}: {error or 'see rank 0'}")

    def _abort_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _on_all(self, route: str, body: dict[str, Any] | None) -> None:
        list(self._pool.map(lambda url: self._post(url, route, body), self._urls))

    def _get(self, url: str, route: str) -> Any:
        return self._checked(self._session.get(f"{url}/{route}", timeout=(5, self._config.timeout_s)))

    def _post(self, url: str, route: str, body: dict[str, Any] | None) -> Any:
        # The worker's own waits end at timeout_s; a little more lets its reason arrive here.
        return self._checked(self._session.post(f"{url}/{route}", json=body, timeout=(5, self._config.timeout_s + 10)))

    @staticmethod
    def _checked(response: requests.Response) -> Any:
        if response.status_code != 200:
            raise RuntimeError(f"{response.url} answered {response.status_code}: {response.text[:300]}")
        return response.json() if response.content else {}
