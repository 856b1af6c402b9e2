"""The three ways of a whole stream into a worker's model: adapters, straight to where weights lie, or vLLM's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor, nn

from rollout.adapters import Adapters
from rollout.places import Places
from rollout.whole_layers import require_whole_layers, unsent_layers_expected


class Loading(Protocol):
    """Takes one stream in.

    Attributes:
        overwrites: what is loaded is in the model before the stream has been checked.
        copies: nothing that was loaded is read later on; its memory may be written to again.
    """

    overwrites: bool
    copies: bool

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take some tensors in."""

    def check(self) -> None:
        """After the last tensor; raises RuntimeError where the stream brought a part of something alone."""

    def finish(self) -> None:
        """The stream is accepted."""


class AdapterLoading:
    """Adapters wait until all of them are there."""

    overwrites = False
    copies = False

    def __init__(self, adapters: Adapters, scale: float) -> None:
        self._adapters, self._scale = adapters, scale

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._adapters.stage(tensors)

    def check(self) -> None:
        self._adapters.check()

    def finish(self) -> None:
        self._adapters.apply(self._scale)


class PlaceLoading:
    """Whole tensors, copied to where they lie."""

    overwrites = True
    copies = True

    def __init__(self, places: Places) -> None:
        self._places = places
        places.begin()

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._places.load(tensors)

    def check(self) -> None:
        """A stream's tensors are those that the places were found for, so none can be missing."""

    def finish(self) -> None:
        """Each layer was made ready with its last tensor."""


class LayerwiseLoading:
    """vLLM's layer-by-layer loading, for any format, which keeps what it gets until a layer is complete."""

    overwrites = True
    copies = False

    def __init__(self, model: nn.Module, model_config: Any) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        self._model: Any = model
        self._model_config = model_config
        initialize_layerwise_reload(model)

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._model.load_weights(tensors)

    def check(self) -> None:
        require_whole_layers(self._model)

    def finish(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        with unsent_layers_expected():
            finalize_layerwise_reload(self._model, self._model_config)
        self._renew_tied_heads()

    def _renew_tied_heads(self) -> None:
        """Prepare heads anew that share their weight with the input embeddings.

        The weight arrives under the embeddings' name alone, so layer-by-layer loading never comes to the head; on a CPU
        it would go on computing with the packed copy that vLLM made of the old weights.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

        tables = [m for m in self._model.modules() if isinstance(m, VocabParallelEmbedding)]
        embeddings = {table.weight.data_ptr() for table in tables if not isinstance(table, ParallelLMHead)}
        for table in tables:
            if isinstance(table, ParallelLMHead) and table.weight.data_ptr() in embeddings:
                table.quant_method.process_weights_after_loading(table)


def restore_half_loaded(model: nn.Module) -> int:
    """Put the tensors of layers back that vLLM's loading has begun and not ended; returns how many layers.

    An interrupted update leaves layers without storage and with half of their new weights buffered. The next update
    would skip such layers and count the stale halves, so they are reset here.
    """
    from vllm.model_executor.model_loader.reload import layerwise

    restored = 0
    for layer in model.modules():
        state = layerwise.get_layerwise_info(layer)
        if not state.can_load():
            continue
        if state.kernel_tensors is not None:
            layerwise._place_kernel_tensors(layer, state)
            restored += 1
        state.reset()
    layerwise.LOADING_LAYERS.clear()
    return restored
