"""The worker's end of the weight stream: a weight-transfer backend for vLLM, registered as `torch_dist`.

vLLM owns the life cycle (start, update, finish); this file joins the learner's group, receives buckets or deltas,
checks the checksum, and puts the old weights back when anything goes wrong half-way. In each of these states the engine
answers nobody, so all of them give signs of life.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.logger import init_logger

from rollout import delta, stream
from rollout.adapters import Adapters
from rollout.alive import signs_of_life
from rollout.buffers import Buffers
from rollout.checksum import StreamChecksum
from rollout.loading import AdapterLoading, LayerwiseLoading, Loading, PlaceLoading, restore_half_loaded
from rollout.places import NoPlaces, Places

logger = init_logger("vllm.timepro.receiver")
_LOADING_LIMIT_S = 300.0  # of one step of loading: a bucket, or preparing the layers before and after a stream


@dataclass(kw_only=True)
class GroupInfo(WeightTransferInitInfo):
    """Where the learner's group meets, and this server's place in it."""

    host: str
    port: int
    prefix: str
    first_rank: int
    world_size: int
    timeout_s: float
    bucket_bytes: int
    adapters: bool  # whether the stream brings adapters, or whole weights
    device: str  # "cpu" (gloo) or "cuda" (NCCL): where the stream's buffers lie, whatever the model lies on


@dataclass(kw_only=True)
class StreamInfo(WeightTransferUpdateInfo):
    """The tensors of one stream, in order, under their names in the published checkpoint layout."""

    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    version: int
    adapter_scale: float = 0.0  # what adapters' parts are multiplied by
    base_version: int | None = None  # a delta's: the version that it starts from; None: the tensors come whole
    part_bytes: list[int] = field(default_factory=list)  # a delta's: of each learner rank's part

    @property
    def types(self) -> list[torch.dtype]:
        return [getattr(torch, name) for name in self.dtypes]


class TorchDistReceiver(WeightTransferEngine[GroupInfo, StreamInfo]):
    """Receives packed buckets, or deltas, over torch.distributed (gloo or NCCL)."""

    init_info_cls = GroupInfo
    update_info_cls = StreamInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._group: Any = None
        self._store: Any = None
        self._info: GroupInfo | None = None
        self._buffers_on = torch.device("cpu")
        self._loading: Loading | None = None
        self._places: Places | None = None
        self._no_places = "no whole stream has come yet"
        self._looked_for: tuple[list[str], list[list[int]], list[str]] | None = None
        self._version: int | None = None  # of the weights, where a learner has sent them and they are whole
        self._coming: int | None = None
        self._torn = False
        self._buffers: Buffers | None = None  # of whole streams
        self.last_update: dict[str, Any] = {}

    def init_transfer_engine(self, info: GroupInfo) -> None:
        if info.adapters != (self._adapters is not None):
            kinds = ("adapters", "whole weights") if info.adapters else ("whole weights", "adapters")
            raise RuntimeError(
                f"the learner sends {kinds[0]}, this worker was started for {kinds[1]}; start both with the same lora.*"
            )
        self.shutdown()
        parallel = self.parallel_config
        rank = info.first_rank + parallel.data_parallel_index * parallel.world_size + parallel.rank
        self._buffers_on = self.device if info.device == self.device.type else torch.device(info.device)
        with signs_of_life(3 * info.timeout_s):  # for the store, for the peers, and for their connections
            self._store = stream.join_store(info.host, info.port, info.timeout_s)
            self._group = stream.join_group(
                self._store, info.prefix, rank, info.world_size, info.timeout_s, self._buffers_on
            )
        self._info = info
        self._version = None  # another learner's numbers count from elsewhere

    def start_weight_update(self) -> None:
        with signs_of_life(_LOADING_LIMIT_S):
            self.restore()  # an update that its learner never finished would poison this one

    def finish_weight_update(self) -> None:
        with signs_of_life(_LOADING_LIMIT_S):
            if self._loading is not None:
                self._loading.finish()
            elif self._places is not None:
                self._places.accept()
        self._loading, self._torn = None, False
        self._version, self._coming = self._coming, None

    @property
    def _adapters(self) -> Adapters | None:
        """The model's adapters, where it was started with some: then they are all that a stream brings."""
        return getattr(self.model, "adapters", None)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class synchronises an accelerator at the end, which raises where there is none.
        timeout_s = self._info.timeout_s if self._info is not None else 0.0
        try:
            with signs_of_life(timeout_s + _LOADING_LIMIT_S) as progress:
                self.receive_weights(self.parse_update_info(update_info), progress)
        except BaseException:
            restored = self.restore()
            self.shutdown()
            logger.exception("weight update failed; %d layers or changed numbers are back as they were", restored)
            raise
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    @torch.no_grad()
    def receive_weights(self, update: StreamInfo, progress: Callable[[], None] = lambda: None) -> None:
        """Receive and load one stream or delta.

        Args:
            progress: called after every bucket.

        Raises:
            RuntimeError: no group, a silent peer, a delta from another version than this worker's, or a checksum that
                differs from the sender's.
        """
        info = self._info
        if self._group is None or info is None:
            raise RuntimeError("weights were announced before the transfer group was joined")
        started = time.monotonic()
        receive = self._receive_whole if update.base_version is None else self._receive_delta
        checksum, n_bytes, loading_s = receive(update, info, progress)
        self._coming = update.version
        self.last_update = {
            "dtype": str(self.model_config.dtype).removeprefix("torch."),
            "device": self.device.type,
            "whole_only": self._no_places,
            "version": update.version,
            "checksum": checksum,
            "bytes": n_bytes,
            "seconds": time.monotonic() - started,
            "load_seconds": loading_s,
        }

    def _receive_whole(
        self, update: StreamInfo, info: GroupInfo, progress: Callable[[], None]
    ) -> tuple[int, int, float]:
        """Checksum, bytes, and seconds of loading."""
        dtypes, loading_s = update.types, 0.0
        sizes = [stream.tensor_bytes(d, s) for d, s in zip(dtypes, update.shapes, strict=True)]
        buckets = stream.plan_buckets(sizes, info.bucket_bytes)
        self._loading = loading = self._way_of_loading(update)
        used_again = self._buffers_for(info, buckets) if loading.copies else None
        with StreamChecksum() as checksum:
            buffers = self._received([bucket.size for bucket in buckets], 1, info, used_again)
            for bucket, buffer in zip(buckets, buffers, strict=False):
                progress()
                begun = time.monotonic()
                sums = checksum.add(buffer)
                if loading.overwrites:
                    self._torn, self._version = True, None
                loading.load(
                    [
                        (update.names[s.tensor], stream.view_slot(buffer, s, dtypes[s.tensor], update.shapes[s.tensor]))
                        for s in bucket.slots
                    ]
                )
                loading_s += time.monotonic() - begun
                if used_again is not None:
                    used_again.give(buffer, sums)
            received, (sent,) = checksum.value(), next(buffers).tolist()
        _require_equal(f"in weight stream {update.version}", sent, received)
        loading.check()
        return received, sum(sizes), loading_s

    def _receive_delta(
        self, update: StreamInfo, info: GroupInfo, progress: Callable[[], None]
    ) -> tuple[int, int, float]:
        """Checksum of the whole state, bytes received, and seconds of putting them in and summing the state.

        Nothing is changed before the whole delta is there and its own checksum is right.
        """
        places, base = self._places, update.base_version
        if places is None or self._version != base or not places.holds(update.names):
            raise RuntimeError(
                f"delta {update.version} starts from weights {base}; this worker has {self._version} "
                f"({self._no_places or 'at known places'})"
            )
        with StreamChecksum() as checksum:
            buffers, parts = self._received(update.part_bytes, 2, info), []
            for _ in update.part_bytes:
                parts.append(next(buffers))
                checksum.add(parts[-1])
                progress()
            received, (sent, wanted) = checksum.value(), next(buffers).tolist()
        _require_equal(f"in weight delta {update.version}", sent, received)
        begun, changes = time.monotonic(), delta.by_tensor(parts, update.types)
        found = places.apply({update.names[number]: c for number, c in changes.items()}, len(parts), progress)
        _require_equal(f"over all weights after delta {update.version}", wanted, found)
        places.renew()
        return found, sum(update.part_bytes), time.monotonic() - begun

    def _way_of_loading(self, update: StreamInfo) -> Loading:
        """How a whole stream gets into this model; looks for the places of its tensors."""
        if self._adapters is not None:
            return AdapterLoading(self._adapters, update.adapter_scale)
        asked = (update.names, update.shapes, update.dtypes)
        if asked != self._looked_for or (self._places is not None and not self._places.holds(update.names)):
            self._places, self._no_places, self._looked_for = None, "", asked
            try:
                self._places = Places(self.model, *asked[:2], update.types)
            except NoPlaces as reason:
                self._no_places = str(reason)
                logger.info("weights come whole, through vLLM's loading: %s", reason)
        if self._places is not None:
            return PlaceLoading(self._places)
        return LayerwiseLoading(self.model, self.model_config)

    def _buffers_for(self, info: GroupInfo, buckets: Sequence[stream.Bucket]) -> Buffers:
        """The buffers of whole streams, kept from one to the next."""
        usual = min(info.bucket_bytes, max(bucket.size for bucket in buckets))
        if self._buffers is None or (self._buffers.device, self._buffers.usual) != (self._buffers_on, usual):
            self._buffers = Buffers(self._buffers_on, usual)
        return self._buffers

    def _received(
        self, sizes: Sequence[int], numbers: int, info: GroupInfo, buffers: Buffers | None = None
    ) -> Iterator[torch.Tensor]:
        """Buffers of these sizes, then the sender's numbers, (numbers,) int64; the next ones come in meanwhile.

        Args:
            buffers: where they are taken from; None: fresh ones, which may be kept.
        """

        def expect(size: int | None) -> tuple[torch.Tensor, Any]:
            if size is None:
                buffer = torch.empty(numbers, dtype=torch.int64, device=self._buffers_on)
            elif buffers is not None:
                buffer = buffers.take(size)
            else:
                buffer = torch.empty(size, dtype=torch.uint8, device=self._buffers_on)
            return buffer, stream.start_broadcast(self._group, buffer, info.timeout_s)

        left, coming = deque([*sizes, None]), deque[tuple[torch.Tensor, Any]]()
        while left or coming:
            while left and len(coming) < stream.IN_FLIGHT:
                coming.append(expect(left.popleft()))
            buffer, work = coming.popleft()
            stream.finish(work, info.timeout_s)
            yield buffer

    def restore(self) -> int:
        """Undo an update that was not finished, as far as it can be; returns how many layers or numbers were put back.

        Layers that a whole stream has reached already keep its numbers: the model is torn then, until the next one.
        """
        if self._adapters is not None:
            self._adapters.discard()
        restored = restore_half_loaded(self.model)
        if self._places is not None:
            restored += self._places.undo()
        self._loading = self._coming = None
        return restored

    @property
    def state(self) -> dict[str, Any]:
        """The transfer group that this process is in ("": none), and the version of its weights (None: unknown)."""
        inside = self._group is not None and self._info is not None
        return {"group": self._info.prefix if inside and self._info is not None else "", "version": self._version}

    @property
    def torn(self) -> bool:
        """Whether the model holds weights of two versions, after a whole stream that was broken off."""
        return self._torn

    def shutdown(self) -> None:
        group, self._group, self._store = self._group, None, None
        if group is not None and hasattr(group, "abort"):
            group.abort()


def _require_equal(where: str, sent: int, received: int) -> None:
    if sent != received:
        raise RuntimeError(f"checksum mismatch {where}: sent {sent:016x}, received {received:016x}")


class WorkerExtension:
    """Methods that `--worker-extension-cls` adds to vLLM's worker, for `/collective_rpc`."""

    weight_transfer_engine: TorchDistReceiver
    _weight_update_active: bool

    def timepro_last_update(self) -> dict[str, Any]:
        """Version, checksum, bytes and seconds of the last update, and why no delta can follow it ("": it can)."""
        return self.weight_transfer_engine.last_update

    def timepro_state(self) -> dict[str, Any]:
        """The receiver's `state`."""
        return self.weight_transfer_engine.state

    def timepro_abort_update(self) -> bool:
        """End an update whose learner is gone: old weights back, ready for a new start. Returns whether it is torn."""
        self.weight_transfer_engine.restore()
        self.weight_transfer_engine.shutdown()
        self._weight_update_active = False
        return self.weight_transfer_engine.torn
