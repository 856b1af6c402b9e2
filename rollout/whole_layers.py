"""Whether a stream of whole weights left no layer half-loaded.

vLLM keeps several published tensors in one (`qkv_proj`, `gate_up_proj`). A stream that brings some of them makes it
allocate the whole, fill in what came, and go on with whatever was in memory for the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import layerwise
from vllm.model_executor.model_loader.reload.meta import SKIP_TENSORS, get_numel_loaded
from vllm.model_executor.model_loader.reload.utils import get_layer_tensors, get_tensor_load_numel


@contextmanager
def unsent_layers_expected() -> Iterator[None]:
    """Keep vLLM from a warning about every layer that nothing came for, such as the audio encoder's, at every sync."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not str(record.msg).endswith("Failed to load weights")

    layerwise.logger.addFilter(is_wanted)
    try:
        yield
    finally:
        layerwise.logger.removeFilter(is_wanted)


def require_whole_layers(model: nn.Module) -> None:
    """Refuse a stream after which a layer has new numbers in a part of a tensor. Before `finalize_layerwise_reload`.

    Layers that came whole are done by now, layers that nothing came for keep what they have.

    Raises:
        RuntimeError: naming the layers and what came of them.
    """
    partial = []
    for name, layer in model.named_modules():
        info = layerwise.get_layerwise_info(layer)
        if not info.can_load() or not info.loaded_weights or isinstance(layer, VocabParallelEmbedding):
            continue  # an embedding table's padding is never streamed; its loader fills it with zeros
        loaded: dict[str, int] = {}
        for tensor_name, arguments in info.loaded_weights:
            loader = layerwise._get_original_loader(getattr(layer, tensor_name))
            loaded[tensor_name] = loaded.get(tensor_name, 0) + get_numel_loaded(loader, arguments)[0]
        for tensor_name, tensor in get_layer_tensors(layer).items():
            whole = get_tensor_load_numel(tensor)
            kept = tensor_name in SKIP_TENSORS and tensor_name not in loaded  # stays in memory as it was
            if loaded.get(tensor_name, 0) < whole and not kept:
                partial.append(f"{name}.{tensor_name} got {loaded.get(tensor_name, 0):,} of its {whole:,} numbers")
    if partial:
        raise RuntimeError(
            f"the weight stream brought only a part of {len(partial)} tensor(s) of this worker: "
            f"{'; '.join(partial[:3])}. A stream must bring all published tensors of a fused layer, or none"
        )
