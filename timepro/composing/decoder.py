"""The decoder of a composed checkpoint: a pretrained Qwen2 or Llama, or a fresh one.

A Llama decoder is a Qwen2 decoder whose query, key and value have no bias: it is stored as one with zeros there, which
changes nothing, so that one class of transformers and of vLLM runs both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from timepro.checkpoints import read_header, weight_files
from timepro.composing.encoder import read_tensor
from timepro.tiny.config import TinyModelConfig

TYPES = ("qwen2", "llama")
_HEAD = "lm_head.weight"
# What a Qwen2 decoder computes with, beside its sizes; the values are those of a configuration that does not name them.
_DETAILS: dict[str, Any] = {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "hidden_act": "silu"}
_MUST_BE = {"attention_bias": False, "mlp_bias": False, "use_sliding_window": False}


@dataclass(frozen=True)
class Decoder:
    """A decoder's shape, and where its weights are.

    Args:
        sizes: those of `TinyModelConfig`.
        details: what else its configuration says: `rms_norm_eps`, `rope_parameters`, ...
        folder: of a pretrained one; None for a fresh one.
    """

    sizes: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Its weights by their names below `model.`, and `lm_head.weight`; float32, one by one."""
        if self.folder is None:
            return
        for path in weight_files(self.folder):
            for name, stored in read_header(path)[0].items():
                if name == _HEAD and self.sizes["tie_word_embeddings"]:
                    continue  # a copy of the embeddings that some exports write
                yield name.removeprefix("model."), read_tensor(stored)


def fresh_decoder(config: TinyModelConfig) -> Decoder:
    """A random decoder of these sizes."""
    names = ("hidden_size", "layers", "heads", "key_value_heads", "feed_forward", "rope_theta", "tie_word_embeddings")
    return Decoder({name: getattr(config, name) for name in names})


def read_decoder(folder: Path) -> Decoder:
    """A pretrained decoder's shape.

    Raises:
        ValueError: no such checkpoint, another kind of decoder, or one with parts that a Qwen2 decoder does not have.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a checkpoint folder: {path.name} is missing")
    config = json.loads(path.read_text(encoding="utf-8"))
    kind = config.get("model_type")
    if kind not in TYPES:
        raise ValueError(f"{path}: model_type is {kind!r}; a decoder must be one of {', '.join(TYPES)}")
    for key, wanted in _MUST_BE.items():
        if config.get(key, wanted) != wanted:
            raise ValueError(
                f"{path}: {key} is {config[key]}, which a composed decoder does not have; take another one"
            )
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_dim = config.get("head_dim") or width // heads
    if head_dim * heads != width:
        raise ValueError(f"{path}: {heads} heads of {head_dim} are not {width} wide; such decoders cannot be composed")
    rope = config.get("rope_parameters") or dict(config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    rope["rope_type"] = rope.get("rope_type") or rope.pop("type", "default")
    sizes = dict(
        hidden_size=width, layers=int(config["num_hidden_layers"]), heads=heads,
        key_value_heads=int(config.get("num_key_value_heads") or heads), feed_forward=int(config["intermediate_size"]),
        rope_theta=float(rope["rope_theta"]), tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )  # fmt: skip
    details = {key: config.get(key, default) for key, default in _DETAILS.items()}
    return Decoder(sizes, details | {"rope_parameters": rope}, folder)
