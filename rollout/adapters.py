"""LoRA adapters in a worker: the base weights stay, and layers add the adapters' part as the learner does.

Not by vLLM's own LoRA: that adds the part to outputs which are rounded already, where RL's changes disappear in
bfloat16 (`timepro/low_rank.py`), and it does not know Qwen2-Audio. A layer with adapters has its A and B in buffers
that exist from the start, zero at first, so that compiled code and CUDA graphs read what the stream puts there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    LinearBase,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
    UnquantizedLinearMethod,
)

from rollout.phases import say_phase
from rollout.settings import ADAPTERS_KEY
from timepro import low_rank

# vLLM's fused layers of a Qwen2 decoder, and the published ones that they are made of, in order.
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@torch.library.custom_op("timepro::adapted_linear", mutates_args=())
def adapted_linear(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
    """(N, O) `x W^T` plus the adapters' part, rounded once.

    An operation of its own, since a compiler may take `addmm` apart into a product that is rounded and a sum.
    """
    return low_rank.add_linear(low_rank.widen(low_rank.narrow(x, down), up), x, weight, bias, overwrite=True)


@adapted_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


class AdaptedMethod(UnquantizedLinearMethod):
    """A linear layer's product with its adapters' part."""

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = adapted_linear(rows, layer.weight, bias, layer.adapter_down, layer.adapter_up)
        return y.view(*x.shape[:-1], y.shape[-1])


class Adapters:
    """The adapters of a decoder.

    Args:
        decoder: vLLM's, with fused layers.
        rank: of each adapter.
        targets: published names of the layers that have one, "q_proj" for example.

    Raises:
        ValueError: targets that the decoder does not have, or a quantised layer.
    """

    def __init__(self, decoder: nn.Module, rank: int, targets: Sequence[str]) -> None:
        self.rank = rank
        self._staged: dict[str, Tensor] = {}
        self._layers: dict[str, tuple[LinearBase, tuple[str, ...]]] = {}
        for name, layer in decoder.named_modules():
            if isinstance(layer, LinearBase):
                holder, _, last = name.rpartition(".")
                inside = [part for part in _FUSED.get(last, (last,)) if part in targets]
                if inside:
                    self._layers[name] = (layer, tuple(f"{holder}.{part}" for part in inside))
        found = {part.rpartition(".")[2] for _, parts in self._layers.values() for part in parts}
        if missing := sorted(set(targets) - found):
            raise ValueError(f"lora.targets: this worker's decoder has no layers named {', '.join(missing)}")
        for name, (layer, parts) in self._layers.items():
            self._prepare(name, layer, len(parts))

    def _prepare(self, name: str, layer: LinearBase, n_parts: int) -> None:
        if type(layer.quant_method) is not UnquantizedLinearMethod:
            method = type(layer.quant_method).__name__
            raise ValueError(f"{name} is quantised ({method}); adapters need a worker with plain weights")
        layer.quant_method = AdaptedMethod()
        layer._cpu_skip_gemm_dispatch = True  # vLLM's word for: leave the weight as it is, on a CPU too
        outputs, inputs = layer.weight.shape
        like = {"dtype": torch.float32, "device": layer.weight.device}
        down, up = torch.zeros(n_parts * self.rank, inputs, **like), torch.zeros(outputs, n_parts * self.rank, **like)
        layer.register_buffer("adapter_down", low_rank.split(down, layer.weight.dtype), persistent=False)
        layer.register_buffer("adapter_up", low_rank.beside(up, layer.weight.dtype), persistent=False)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """The tensors that a stream must bring, all of them and no others."""
        found = {}
        for layer, parts in self._layers.values():
            for part in parts:
                _, size, _, shards = _rows_of(layer, part.rpartition(".")[2])
                found[f"{part}.lora_A.weight"] = (self.rank, layer.input_size)
                found[f"{part}.lora_B.weight"] = (size * shards, self.rank)
        return found

    def stage(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Keep what comes in until all of it is there; the layers go on with what they have."""
        self._staged.update(tensors)

    def discard(self) -> None:
        """Forget what was staged."""
        self._staged.clear()

    def check(self) -> None:
        """Whether a stream brought every layer's A and B.

        Raises:
            RuntimeError: naming what is missing, unknown or of another shape.
        """
        wanted, found = self.shapes(), {name: tuple(tensor.shape) for name, tensor in self._staged.items()}
        wrong = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
        wrong += [f"{name} has no place here" for name in sorted(found.keys() - wanted.keys())]
        wrong += [f"{n} is {found[n]}, not {wanted[n]}" for n in sorted(wanted.keys() & found) if found[n] != wanted[n]]
        if wrong:
            raise RuntimeError(
                f"the stream's adapters are not this worker's: {'; '.join(wrong[:3])} ({len(wrong)} in all); learner "
                "and worker must be started with the same lora.*"
            )

    @torch.no_grad()
    def apply(self, scale: float) -> None:
        """Take over what is staged, and has been found whole.

        Args:
            scale: of every adapter's part.
        """
        for layer, parts in self._layers.values():
            down, up = self._of_layer(layer, parts, scale)
            layer.adapter_down.copy_(low_rank.split(down, layer.weight.dtype))
            layer.adapter_up.copy_(low_rank.beside(up, layer.weight.dtype))
        self.discard()

    def _of_layer(self, layer: LinearBase, parts: Sequence[str], scale: float) -> tuple[Tensor, Tensor]:
        """This process's A (parts * rank, inputs) and scaled B (outputs, parts * rank), B's blocks on the diagonal."""
        device, tensors = layer.weight.device, self._staged
        a = torch.cat([tensors[f"{part}.lora_A.weight"].to(device).float() for part in parts])
        if isinstance(layer, RowParallelLinear):
            a = a.chunk(layer.tp_size, dim=1)[layer.tp_rank]
        up = torch.zeros(layer.weight.shape[0], len(a), dtype=torch.float32, device=device)
        for number, part in enumerate(parts):
            b = tensors[f"{part}.lora_B.weight"].to(device).float()
            first, size, shard, shards = _rows_of(layer, part.rpartition(".")[2])
            columns = slice(number * self.rank, (number + 1) * self.rank)
            up[first : first + size, columns] = scale * b.chunk(shards)[shard]
        return a, up


def _rows_of(layer: LinearBase, part: str) -> tuple[int, int, int, int]:
    """Where a published layer's outputs lie in this process's weight: first row, rows, its share, and of how many."""
    if isinstance(layer, QKVParallelLinear):
        sizes = [layer.num_heads * layer.head_size, *[layer.num_kv_heads * layer.head_size] * 2]
        number = _FUSED["qkv_proj"].index(part)
        copies = layer.num_kv_head_replicas if number else 1  # more processes than key heads share each among them
        return sum(sizes[:number]), sizes[number], layer.tp_rank // copies, layer.tp_size // copies
    if isinstance(layer, MergedColumnParallelLinear):
        sizes = [size // layer.tp_size for size in layer.output_sizes]
        number = _FUSED["gate_up_proj"].index(part)
        return sum(sizes[:number]), sizes[number], layer.tp_rank, layer.tp_size
    split = layer.tp_size if isinstance(layer, ColumnParallelLinear) else 1
    return 0, layer.weight.shape[0], layer.tp_rank if split > 1 else 0, split


class AdaptersMixin:
    """Gives a family's vLLM class the adapters that its worker was started with."""

    adapters: Adapters | None = None

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        say_phase("loading the model")
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]  # of vLLM's class
        asked = (vllm_config.additional_config or {}).get(ADAPTERS_KEY)
        if not asked:
            return
        decoder = getattr(getattr(self, "language_model", None), "model", None)
        if decoder is None:
            raise ValueError(f"{type(self).__name__} has no language_model.model, where lora.* would put adapters")
        self.adapters = Adapters(decoder, asked["rank"], asked["targets"])
