"""LoRA (arXiv 2106.09685) on the language model's linear layers.

The base weights stay as they are, in training and in the workers, which get A and B and add the adapter's part
themselves, by the same arithmetic (`timepro.low_rank`). A and B are float32 whatever the base is in. The layers are
not PEFT's, which adds the adapter's part to an output that is rounded already; what is written and read is its format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from timepro import low_rank
from trainer.settings.lora import LoraConfig


@dataclass(frozen=True)
class Streamed:
    """One tensor as workers or checkpoints know it, and the parameters that it is made of.

    Args:
        name: published, or an adapter's name in the decoder.
        parameters: gathered together before `merge` is called; the first has the tensor's shape and dtype.
        merge: from the gathered parameters to the tensor.
    """

    name: str
    parameters: list[nn.Parameter]
    merge: Callable[[], Tensor]

    @property
    def dtype(self) -> torch.dtype:
        return self.parameters[0].dtype


class AdaptedLinear(nn.Module):
    """A frozen linear layer with a trained A and B, and perhaps those that training started from.

    Its parts are modules that each compute with their own parameter alone, since ZeRO-3 gathers a module's parameters
    for its own forward pass.

    Attributes:
        using: the adapter that is applied: "trained", "start", or "none".
    """

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base_layer = _Base(base)
        self.lora_A, self.lora_B = _fresh_pair(base, config)
        self.start_A: _Narrow | None = None
        self.start_B: _Widen | None = None
        self.dropout = nn.Dropout(config.dropout)
        self.using = "trained"
        self._config, self._outputs = config, base.out_features

    @property
    def weight(self) -> nn.Parameter:
        return self.base_layer.weight

    @property
    def scale(self) -> float:
        return self._config.alpha / self._config.rank

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.using == "trained":
            added = self.lora_B(self.lora_A(self.dropout(rows)))
        elif self.using == "start" and self.start_A is not None and self.start_B is not None:
            added = self.start_B(self.start_A(rows))
        else:  # the same matrix product as with an adapter, so that one of zeros gives equal bits
            added = rows.new_zeros(len(rows), self._outputs)
        return self.base_layer(added, rows).view(*x.shape[:-1], self._outputs)

    def keep_start(self) -> None:
        """Keep the adapter as it is now beside the trained one, frozen."""
        self.start_A = _Narrow(self.lora_A.weight.detach().clone())
        self.start_B = _Widen(self.lora_B.weight.detach().clone(), self.scale)
        for module in (self.start_A, self.start_B):
            module.requires_grad_(False)


class _Base(nn.Module):
    """`added + x W^T`, then the bias."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight: Any = linear.weight  # shared with the model: a parameter
        self.bias = linear.bias
        self.requires_grad_(False)

    def forward(self, added: Tensor, x: Tensor) -> Tensor:
        return _add_linear(added, x, self.weight, self.bias)


class _Narrow(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return _narrow(x, self.weight)


class _Widen(nn.Module):
    def __init__(self, weight: Tensor, scale: float) -> None:
        super().__init__()
        self.weight, self._scale = nn.Parameter(weight), scale

    def forward(self, h: Tensor) -> Tensor:
        return _widen(h, self.weight, self._scale)


class _AddLinearFunction(torch.autograd.Function):
    """Saves the parameter itself, whose storage ZeRO-3 takes away between the passes; a view would keep it."""

    @staticmethod
    def forward(ctx: Any, added: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return low_rank.add_linear(added, x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        to_x = low_rank.product(gradient, weight.t()) if ctx.needs_input_grad[1] else None
        return gradient, to_x, None, None


class _NarrowFunction(torch.autograd.Function):
    """(N, I) times A (R, I) in float32, without a float32 copy of the (N, I)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor) -> Tensor:
        ctx.save_for_backward(x, a)
        return low_rank.narrow(x, low_rank.split(a, x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, a = ctx.saved_tensors
        # A gradient needs no more digits than its own type has: the coarse part of A does.
        to_x = low_rank.product(gradient, a.t().to(gradient.dtype)) if ctx.needs_input_grad[0] else None
        return to_x, low_rank.product(gradient.t(), x.t()).float() if ctx.needs_input_grad[1] else None


class _WidenFunction(torch.autograd.Function):
    """(N, R) times the scaled B (O, R) in float32."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(h, b)
        ctx.scale = scale
        return low_rank.widen(h, low_rank.beside(scale * b, h.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        h, b = ctx.saved_tensors
        to_h = low_rank.product(gradient, (ctx.scale * b).t().to(gradient.dtype)) if ctx.needs_input_grad[0] else None
        to_b = ctx.scale * low_rank.product(gradient.t(), h.t()).float() if ctx.needs_input_grad[1] else None
        return to_h, to_b, None


def _add_linear(added: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _AddLinearFunction.apply(added, x, weight, bias)


def _narrow(x: Tensor, a: Tensor) -> Tensor:
    return _NarrowFunction.apply(x, a)


def _widen(h: Tensor, b: Tensor, scale: float) -> Tensor:
    return _WidenFunction.apply(h, b, scale)


def _fresh_pair(base: nn.Linear, config: LoraConfig) -> tuple[_Narrow, _Widen]:
    """A as PEFT draws it, B zero: the layer starts as it was."""
    where = base.weight.device
    a = torch.empty(config.rank, base.in_features, dtype=torch.float32, device=where)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    b = torch.zeros(base.out_features, config.rank, dtype=torch.float32, device=where)
    return _Narrow(a), _Widen(b, config.alpha / config.rank)


def add_lora(text_model: nn.Module, config: LoraConfig, seed: int) -> None:
    """Put adapters into a decoder, in place, and freeze everything else of it.

    Args:
        seed: of A's values, which are the same on every rank.

    Raises:
        ValueError: a rank, alpha or dropout out of range, or a target that the decoder does not have.
    """
    if config.rank < 1 or config.alpha <= 0 or not 0 <= config.dropout < 1:
        raise ValueError(
            f"lora: rank {config.rank}, alpha {config.alpha}, dropout {config.dropout}; rank must be at least 1, alpha "
            "above 0, dropout in [0, 1)"
        )
    linears = [(name, module) for name, module in text_model.named_modules() if isinstance(module, nn.Linear)]
    known = {name.rpartition(".")[2] for name, _ in linears}
    unknown = sorted(set(config.targets) - known)
    if unknown or not config.targets:
        raise ValueError(f"lora.targets: {unknown or 'empty'}; the decoder's linear layers are {sorted(known)}")
    text_model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, linear in linears:
            parent, _, last = name.rpartition(".")
            if last in config.targets:
                setattr(text_model.get_submodule(parent), last, AdaptedLinear(linear, config))


def lora_layers(text_model: nn.Module) -> Iterator[tuple[str, AdaptedLinear]]:
    """The decoder's layers with an adapter, by their names in it."""
    for name, module in text_model.named_modules():
        if isinstance(module, AdaptedLinear):
            yield name, module


def adapter_tensors(text_model: nn.Module) -> Iterator[Streamed]:
    """A and B of every layer under PEFT's names, `layers.0.self_attn.q_proj.lora_A.weight` for example."""
    for name, layer in lora_layers(text_model):
        yield plain(layer.lora_A.weight, f"{name}.lora_A.weight")
        yield plain(layer.lora_B.weight, f"{name}.lora_B.weight")


def set_adapters(text_model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give every layer the A and B of `tensors`, by the names of `adapter_tensors`. Before ZeRO-3 takes them apart.

    Raises:
        ValueError: other layers or shapes than the decoder's; `source` names where the tensors come from.
    """
    own = {streamed.name: streamed.parameters[0] for streamed in adapter_tensors(text_model)}
    if odd := sorted(own.keys() ^ tensors.keys()):
        raise ValueError(f"{source} does not fit lora.targets: {odd[0]} is on one side alone ({len(odd)} such)")
    for name, parameter in own.items():
        if parameter.shape != tensors[name].shape:
            raise ValueError(
                f"{source}: {name} is {tuple(tensors[name].shape)}, the model wants {tuple(parameter.shape)}"
            )
        parameter.data.copy_(tensors[name])


@contextmanager
def using(text_model: nn.Module, adapter: str) -> Iterator[None]:
    """All layers apply this adapter ("start" or "none") while the context is open."""
    layers = [layer for _, layer in lora_layers(text_model)]
    for layer in layers:
        layer.using = adapter
    try:
        yield
    finally:
        for layer in layers:
            layer.using = "trained"


def plain(parameter: nn.Parameter, name: str) -> Streamed:
    """A parameter that is trained itself."""
    return Streamed(name, [parameter], parameter.detach)


def trained_share(parameters: Sequence[nn.Parameter]) -> tuple[int, int]:
    """Numbers in trained parameters, and in all; partitioned or not."""
    sizes = [(math.prod(getattr(p, "ds_shape", p.shape)), p.requires_grad) for p in parameters]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
