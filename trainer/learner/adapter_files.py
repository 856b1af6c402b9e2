"""Adapters as files, in PEFT's format (`adapter_model.safetensors`, `adapter_config.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from timepro.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter_config
from timepro.system.files import replacing
from trainer.settings.lora import LoraConfig


def export_adapter(folder: Path, config: LoraConfig, tensors: Mapping[str, Tensor], prefix: str, base: Path) -> None:
    """Write an adapter as PEFT reads it.

    Args:
        tensors: A and B by their names in the decoder, whole.
        prefix: of the decoder in the Hugging Face model, `model.` for example.
        base: the checkpoint folder that the adapter belongs to.
    """
    from peft import LoraConfig as PeftConfig
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{_stem(prefix)}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    settings = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout,
        base_model_name_or_path=str(base.resolve()),
        target_modules=rf"{prefix.replace('.', chr(92) + '.')}.*\.({'|'.join(config.targets)})",
    )  # fmt: skip
    with replacing(folder / ADAPTER_CONFIG) as out:
        json.dump(settings.to_dict(), out, indent=1, default=_plain)


def read_adapter(folder: Path, prefix: str) -> dict[str, Tensor]:
    """A and B by their names in the decoder, as `export_adapter` or PEFT wrote them.

    Raises:
        ValueError: the folder holds no adapter, or one of another model.
    """
    from safetensors.torch import load_file

    read_adapter_config(folder)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    stem = _stem(prefix)
    if foreign := [name for name in tensors if not name.startswith(stem)]:
        raise ValueError(f"{folder} is an adapter of another model: {foreign[0]} does not begin with {stem}")
    return {name.removeprefix(stem): tensor.float() for name, tensor in tensors.items()}


def _stem(prefix: str) -> str:
    return f"base_model.model.{prefix}"


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{value!r} is not JSON")
