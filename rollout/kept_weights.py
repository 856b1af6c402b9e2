"""Weights that stay in memory on a CPU, where vLLM would keep the copy alone that it packs for its matrix products.

A delta changes single numbers, which a packed copy has no places for. A worker that was started for deltas keeps both,
changes the plain weights and packs them again; on a GPU nothing is packed.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

from rollout.settings import KEEP_WEIGHTS_KEY


class KeptLinearMethod(UnquantizedLinearMethod):
    """Keeps a layer's weight beside the copy that vLLM packs for a CPU, and computes with the packed one as ever.

    A processor with AMX takes small matrices in bfloat16 by a kernel whose bias is float32, and vLLM makes the layer's
    own bias that. It stays as it is here, since a stream brings it so, and is widened (exactly) at every use.
    """

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        packed: Any = layer  # what vLLM puts on it has no type
        kept = None if getattr(layer, "bias", None) is None else packed.bias.data
        dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
        if kept is None or packed.bias.dtype == kept.dtype:
            return
        wide, product = packed.bias.dtype, packed.cpu_linear
        packed.bias.data = kept
        packed.cpu_linear = lambda x, weight, bias: product(x, weight, None if bias is None else bias.to(wide))


class KeptWeightsMixin:
    """Gives a family's vLLM class weights that stay in memory on a CPU, where its worker was started for deltas."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]  # of vLLM's class
        if not (vllm_config.additional_config or {}).get(KEEP_WEIGHTS_KEY):
            return
        for module in self.modules():  # type: ignore[attr-defined]  # of vLLM's class
            plain = isinstance(module, LinearBase) and type(module.quant_method) is UnquantizedLinearMethod
            if plain and module.weight.device.type == "cpu":
                module.quant_method = KeptLinearMethod()
