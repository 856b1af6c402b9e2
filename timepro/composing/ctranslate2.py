"""Whisper's encoder out of a CTranslate2 folder (`model.bin`), without CTranslate2.

The file holds a version, the model's kind and revision, and its variables: name, shape, type, number of bytes, bytes;
all numbers little-endian. Query, key and value of an attention are one matrix there, with a bias for the key, which
Whisper does not have and which is zero.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

FILE = "model.bin"
_KIND = "WhisperSpec"
_TYPES: dict[int, str] = {0: "<f4", 2: "<i2", 3: "<i4", 4: "<f2"}
_NAMES = {0: "float32", 1: "int8", 2: "int16", 3: "int32", 4: "float16", 5: "bfloat16"}
_LAYER = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
_WHOLE = {"conv1": "conv1", "conv2": "conv2", "layer_norm": "layer_norm"}
_PART = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def read_encoder(path: Path) -> tuple[dict[str, Tensor], int]:
    """The encoder's weights by transformers' names (without `model.encoder.`), float32; and its attention heads.

    Raises:
        ValueError: another kind of file or model, one that is cut off, or weights of a type that is not read.
    """
    variables = {
        name.removeprefix("encoder/"): value for name, value in _variables(path) if name.startswith("encoder/")
    }
    if "num_heads" not in variables:
        raise ValueError(f"{path}: its encoder does not say its number of attention heads; convert the model anew")
    weights: dict[str, Tensor] = {}
    for name, value in variables.items():
        if value.ndim:
            weights |= _renamed(name, torch.from_numpy(value.astype(np.float32)), path)
    return weights, int(variables["num_heads"])


def _renamed(name: str, value: Tensor, path: Path) -> dict[str, Tensor]:
    """A variable by the names of transformers: one tensor, or those of query, key and value."""
    owner, _, part = name.rpartition("/")
    if name == "position_encodings/encodings":
        return {"embed_positions.weight": value}
    if owner in _WHOLE and part in _PART:
        return {f"{_WHOLE[owner]}.{_PART[part]}": value}
    layer, _, inner = owner.partition("/")
    prefix = f"layers.{layer.removeprefix('layer_')}"
    if inner in _LAYER and part in _PART:
        return {f"{prefix}.{_LAYER[inner]}.{_PART[part]}": value}
    if inner == "self_attention/linear_0" and part in _PART:
        query, key, third = value.chunk(3)
        if part == "bias" and key.any():
            raise ValueError(
                f"{path}: {name} has a bias for the key, which Whisper does not have; not a Whisper encoder"
            )
        found = {f"{prefix}.self_attn.q_proj.{part}": query, f"{prefix}.self_attn.v_proj.{part}": third}
        return found | ({f"{prefix}.self_attn.k_proj.weight": key} if part == "weight" else {})
    raise ValueError(f"{path}: variable encoder/{name} is none of a Whisper encoder; this version is not supported")


def _variables(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every variable of the encoder; the others are passed over."""
    with path.open("rb") as file:
        try:
            _, kind, _, count = _numbers(file, "I")[0], _text(file), *_numbers(file, "II")
            if kind != _KIND:
                raise ValueError(f"{path}: holds a {kind!r}, not a Whisper model ({_KIND})")
            for _ in range(count):
                name = _text(file)
                shape = _numbers(file, "I" * _numbers(file, "B")[0])
                code, size = _numbers(file, "BI")
                if not name.startswith("encoder/"):
                    file.seek(size, 1)
                    continue
                if code not in _TYPES:
                    kind = _NAMES.get(code, f"type {code}")
                    raise ValueError(
                        f"{path}: {name} is stored as {kind}; convert the model with --quantization float16 or float32"
                    )
                raw = file.read(size)
                if len(raw) < size:
                    raise EOFError
                yield name, np.frombuffer(raw, _TYPES[code]).reshape(shape)
        except (struct.error, EOFError, UnicodeDecodeError):
            raise ValueError(f"{path}: is cut off, or not a CTranslate2 model; fetch it again") from None


def _numbers(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _text(file: BinaryIO) -> str:
    (size,) = _numbers(file, "H")
    return file.read(size).rstrip(b"\0").decode()
