"""LoRA (arXiv 2106.09685) on the language model's linear layers, by PEFT; workers get the merged weights.

PEFT puts the adapters in; what is sent and exported is `W + B A alpha / rank` under W's own published name, so that a
worker or any other program needs to know nothing of adapters. The adapter alone is exported beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timepro.system.files import replacing
from trainer.settings.lora import LoraConfig

ADAPTER_FOLDER = "adapter"
_NAME = "default"


@dataclass(frozen=True)
class Streamed:
    """One tensor as workers and checkpoints know it, and the parameters that it is made of.

    Args:
        name: published.
        parameters: gathered together before `merge` is called; the first has the tensor's shape and dtype.
        merge: from the gathered parameters to the tensor.
    """

    name: str
    parameters: list[nn.Parameter]
    merge: Callable[[], Tensor]

    @property
    def dtype(self) -> torch.dtype:
        return self.parameters[0].dtype


def add_lora(text_model: nn.Module, config: LoraConfig, seed: int = 0) -> None:
    """Put adapters into a decoder, in place, and freeze everything else of it.

    Raises:
        ValueError: a rank, alpha or dropout out of range, or a target that the decoder does not have.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    if config.rank < 1 or config.alpha <= 0 or not 0 <= config.dropout < 1:
        raise ValueError(
            f"lora: rank {config.rank}, alpha {config.alpha}, dropout {config.dropout}; rank must be at least 1, alpha "
            "above 0, dropout in [0, 1)"
        )
    linears = {name.rpartition(".")[2] for name, module in text_model.named_modules() if isinstance(module, nn.Linear)}
    unknown = sorted(set(config.targets) - linears)
    if unknown or not config.targets:
        raise ValueError(f"lora.targets: {unknown or 'empty'}; the decoder's linear layers are {sorted(linears)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the same start on every rank
        inject_adapter_in_model(
            PeftConfig(
                r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(config.targets)
            ),
            text_model,
        )


def lora_layers(text_model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The decoder's layers with an adapter, by their names in it."""
    for name, module in text_model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name, module


def merged(layer: Any, name: str) -> Streamed:
    """A layer's merged weight, under its published name."""
    base, a, b = layer.base_layer.weight, layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
    scale = float(layer.scaling[_NAME])

    @torch.no_grad()
    def merge() -> Tensor:
        return (base.float() + scale * (b.float() @ a.float())).to(base.dtype)

    return Streamed(name, [base, a, b], merge)


def plain(parameter: nn.Parameter, name: str) -> Streamed:
    """A parameter that is trained itself."""
    return Streamed(name, [parameter], parameter.detach)


def export_adapter(folder: Path, config: LoraConfig, tensors: Mapping[str, Tensor], prefix: str, base: Path) -> None:
    """Write the adapter as PEFT reads it: `adapter_model.safetensors` and `adapter_config.json`.

    Args:
        tensors: A and B by their names in the decoder, whole.
        prefix: of the decoder in the Hugging Face model, `model.` for example.
        base: the checkpoint folder that the adapter belongs to.
    """
    from peft import LoraConfig as PeftConfig
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    named = {f"base_model.model.{prefix}{name.replace(f'.{_NAME}', '')}": t.contiguous() for name, t in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, base_model_name_or_path=str(base),
        target_modules=rf"{prefix.replace('.', chr(92) + '.')}.*\.({'|'.join(config.targets)})",
    )  # fmt: skip
    with replacing(folder / "adapter_config.json") as out:
        json.dump(settings.to_dict(), out, indent=1, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{value!r} is not JSON")


def trained_share(parameters: Sequence[nn.Parameter]) -> tuple[int, int]:
    """Numbers in trained parameters, and in all; partitioned or not."""
    sizes = [(math.prod(getattr(p, "ds_shape", p.shape)), p.requires_grad) for p in parameters]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
