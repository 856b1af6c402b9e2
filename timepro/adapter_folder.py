"""A checkpoint's `adapter/` folder, as far as it can be read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ADAPTER_FOLDER = "adapter"  # in a checkpoint folder
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapter_base(checkpoint: Path, rank: int, alpha: float) -> Path:
    """The checkpoint folder under the adapter of a fine-tuned one: where training with `lora.continue` starts.

    Args:
        rank, alpha: that training wants.

    Raises:
        ValueError: no adapter, one of another kind, or a base that is gone.
    """
    folder = checkpoint / ADAPTER_FOLDER
    settings = read_adapter_config(folder)
    base = Path(settings.get("base_model_name_or_path") or "")
    found = {"lora.rank": settings.get("r"), "lora.alpha": settings.get("lora_alpha")}
    wanted = {"lora.rank": rank, "lora.alpha": alpha}
    differing = [f"{key} is {wanted[key]:g}, its own {found[key]}" for key in wanted if found[key] != wanted[key]]
    if differing:
        raise ValueError(f"lora.continue: {folder} is another kind of adapter: {'; '.join(differing)}; set them alike")
    if not (base / "config.json").is_file():
        raise ValueError(
            f"lora.continue: the adapter {folder} belongs to the checkpoint {base}, which is not there; put it back, "
            f"name its place as base_model_name_or_path in {ADAPTER_CONFIG}, or set lora.continue=false"
        )
    return base


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """PEFT's settings of an adapter.

    Raises:
        ValueError: the folder holds no adapter.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file() or not (folder / ADAPTER_WEIGHTS).is_file():
        raise ValueError(
            f"lora.continue=true goes on with the adapter of fine-tuning, but {folder} holds none; fine-tune with the "
            "same lora.rank first (sft.enabled=true), or set lora.continue=false"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))
