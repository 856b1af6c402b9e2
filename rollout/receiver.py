"""The worker's end of the weight stream: a weight-transfer backend for vLLM, registered as `torch_dist`.

vLLM owns the life cycle (start, update, finish) and the layer-by-layer loading; this file joins the learner's group,
receives buckets, checks the stream's checksum, and puts the old weights back when anything goes wrong half-way. In each
of these states the engine answers nobody, so all of them give signs of life.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.logger import init_logger

from rollout import stream
from rollout.adapters import Adapters
from rollout.alive import signs_of_life
from rollout.checksum import StreamChecksum
from rollout.whole_layers import require_whole_layers, unsent_layers_expected

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


class TorchDistReceiver(WeightTransferEngine[GroupInfo, StreamInfo]):
    """Receives packed buckets over torch.distributed (gloo or NCCL)."""

    init_info_cls = GroupInfo
    update_info_cls = StreamInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._group: Any = None
        self._store: Any = None
        self._info: GroupInfo | None = None
        self._buffers_on = torch.device("cpu")
        self._scale = 0.0
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

    def start_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        with signs_of_life(_LOADING_LIMIT_S):
            self.restore()  # an update that its learner never finished would poison this one
            if self._adapters is None:
                initialize_layerwise_reload(self.model)

    def finish_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        with signs_of_life(_LOADING_LIMIT_S):
            if self._adapters is not None:
                self._adapters.apply(self._scale)
                return
            with unsent_layers_expected():
                finalize_layerwise_reload(self.model, self.model_config)
            self._renew_tied_heads()

    @property
    def _adapters(self) -> Adapters | None:
        """The model's adapters, where it was started with some: then they are all that a stream brings."""
        return getattr(self.model, "adapters", None)

    def _load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        if self._adapters is not None:
            self._adapters.stage(tensors)
        else:
            self.model.load_weights(tensors)

    def _require_whole(self) -> None:
        if self._adapters is not None:
            self._adapters.check()
        else:
            require_whole_layers(self.model)

    def _renew_tied_heads(self) -> None:
        """Prepare heads anew that share their weight with the input embeddings.

        The weight arrives under the embeddings' name alone, so layer-by-layer loading never comes to the head; on a CPU
        it would go on computing with the packed copy that vLLM made of the old weights.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

        tables = [m for m in self.model.modules() if isinstance(m, VocabParallelEmbedding)]
        embeddings = {table.weight.data_ptr() for table in tables if not isinstance(table, ParallelLMHead)}
        for table in tables:
            if isinstance(table, ParallelLMHead) and table.weight.data_ptr() in embeddings:
                table.quant_method.process_weights_after_loading(table)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class synchronises an accelerator at the end, which raises where there is none.
        timeout_s = self._info.timeout_s if self._info is not None else 0.0
        try:
            with signs_of_life(timeout_s + _LOADING_LIMIT_S) as progress:
                self.receive_weights(self.parse_update_info(update_info), progress)
        except BaseException:
            layers = self.restore()
            self.shutdown()
            logger.exception("weight update failed; the old weights of %d layers are back", layers)
            raise
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    @torch.no_grad()
    def receive_weights(self, update: StreamInfo, progress: Callable[[], None] = lambda: None) -> None:
        """Receive and load one stream.

        Args:
            progress: called after every bucket.

        Raises:
            RuntimeError: no group, a silent peer, or a checksum that differs from the sender's.
        """
        info = self._info
        if self._group is None or info is None:
            raise RuntimeError("weights were announced before the transfer group was joined")
        dtypes = [getattr(torch, name) for name in update.dtypes]
        sizes = [stream.tensor_bytes(d, s) for d, s in zip(dtypes, update.shapes, strict=True)]
        sent, started, loading = -1, time.monotonic(), 0.0
        with StreamChecksum() as checksum:
            for bucket, buffer in self._received(stream.plan_buckets(sizes, info.bucket_bytes), info):
                progress()
                if bucket is None:
                    sent = int(buffer.item())
                    continue
                begun = time.monotonic()
                checksum.add(buffer)
                self._load(
                    [
                        (update.names[s.tensor], stream.view_slot(buffer, s, dtypes[s.tensor], update.shapes[s.tensor]))
                        for s in bucket.slots
                    ]
                )
                loading += time.monotonic() - begun
            received = checksum.value()
        if sent != received:
            raise RuntimeError(
                f"checksum mismatch in weight stream {update.version}: sent {sent:016x}, received {received:016x}"
            )
        self._require_whole()
        self._scale = update.adapter_scale
        self.last_update = {
            "dtype": str(self.model_config.dtype).removeprefix("torch."),
            "version": update.version,
            "checksum": received,
            "bytes": sum(sizes),
            "seconds": time.monotonic() - started,
            "load_seconds": loading,
        }

    def _received(
        self, buckets: list[stream.Bucket], info: GroupInfo
    ) -> Iterator[tuple[stream.Bucket | None, torch.Tensor]]:
        """Each bucket with its bytes, then None with the sender's checksum; the next one comes in meanwhile."""

        def expect(bucket: stream.Bucket | None) -> tuple[torch.Tensor, Any]:
            # A fresh buffer each time: layer-by-layer loading keeps views until a layer is complete.
            size, dtype = (bucket.size, torch.uint8) if bucket is not None else (1, torch.int64)
            buffer = torch.empty(size, dtype=dtype, device=self._buffers_on)
            return buffer, stream.start_broadcast(self._group, buffer, info.timeout_s)

        parts = [*buckets, None]
        coming = expect(parts[0])
        for number, part in enumerate(parts, start=1):
            buffer, work = coming
            stream.finish(work, info.timeout_s)
            if number < len(parts):
                coming = expect(parts[number])
            yield part, buffer

    def restore(self) -> int:
        """Put the tensors of half-loaded layers back; returns how many layers.

        An interrupted update leaves layers without storage and with half of their new weights buffered. The next
        update would skip such layers and count the stale halves, so they are reset here.
        """
        from vllm.model_executor.model_loader.reload import layerwise

        restored = 0
        if self._adapters is not None:
            self._adapters.discard()
        for layer in self.model.modules():
            state = layerwise.get_layerwise_info(layer)
            if not state.can_load():
                continue
            if state.kernel_tensors is not None:
                layerwise._place_kernel_tensors(layer, state)
                restored += 1
            state.reset()
        layerwise.LOADING_LAYERS.clear()
        return restored

    @property
    def group_prefix(self) -> str:
        return self._info.prefix if self._group is not None and self._info is not None else ""

    def shutdown(self) -> None:
        group, self._group, self._store = self._group, None, None
        if group is not None and hasattr(group, "abort"):
            group.abort()


class WorkerExtension:
    """Methods that `--worker-extension-cls` adds to vLLM's worker, for `/collective_rpc`."""

    weight_transfer_engine: TorchDistReceiver
    _weight_update_active: bool

    def timepro_last_update(self) -> dict[str, Any]:
        """Version, checksum, bytes and seconds of the last complete update."""
        return self.weight_transfer_engine.last_update

    def timepro_group(self) -> str:
        """The prefix of the transfer group that this process is in; empty outside one."""
        return self.weight_transfer_engine.group_prefix

    def timepro_abort_update(self) -> int:
        """End an update whose learner is gone: old weights back, ready for a new start."""
        restored = self.weight_transfer_engine.restore()
        self.weight_transfer_engine.shutdown()
        self._weight_update_active = False
        return restored
