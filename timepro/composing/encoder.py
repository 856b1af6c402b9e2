"""The audio encoder of a composed checkpoint: Whisper's, or that of a checkpoint of a supported family."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timepro.checkpoints import DTYPES, StoredTensor, read_header, weight_files
from timepro.composing import ctranslate2
from timepro.families import ModelFamily, all_families, family_of

_WHISPER_PREFIXES = ("model.encoder.", "encoder.")  # with a head, and without


@dataclass(frozen=True)
class Encoder:
    """An encoder's shape and weights.

    Args:
        mel_bins, width, layers, heads, feed_forward: its shape.
        window: audio frames that Omni's attends over at a time, before pooling; 0 where its family decides.
        weights: float32, by Whisper's names, or by published names of `family`; empty for random ones.
        family: whose encoder it is; "" for Whisper's.
    """

    mel_bins: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    weights: dict[str, Tensor]
    family: str = ""
    window: int = 0

    def randomly(self) -> Encoder:
        """The same shape without the weights."""
        return replace(self, weights={}, family="")


def read_audio_encoder(folder: Path) -> Encoder:
    """Read an encoder.

    Args:
        folder: a Whisper of transformers or CTranslate2, or a checkpoint of a supported family.

    Raises:
        ValueError: none of them, or a damaged one.
    """
    if (folder / ctranslate2.FILE).is_file():
        weights, heads = ctranslate2.read_encoder(folder / ctranslate2.FILE)
        return _shaped(weights, heads, folder)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds neither {path.name} nor {ctranslate2.FILE}; give a Whisper model's folder")
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") == "whisper":
        return _shaped(_tensors(folder, _WHISPER_PREFIXES), int(config["encoder_attention_heads"]), folder)
    if "model_type" not in config:
        raise ValueError(
            f"{path}: names no model_type; a CTranslate2 model has {ctranslate2.FILE} beside it, which is not fetched "
            "by a hub name: give the folder of a download"
        )
    supported = {kind: family for family in all_families() for kind in family.source_types}
    if config.get("model_type") not in supported:
        raise ValueError(
            f"{path}: model_type {config.get('model_type')!r} has no audio encoder that is read; give a Whisper model, "
            f"or a checkpoint of {', '.join(sorted(supported))}"
        )
    return _of_family(folder, family_of(folder, source=True))


def _shaped(weights: dict[str, Tensor], heads: int, folder: Path) -> Encoder:
    """An encoder whose shape is its weights'."""
    try:
        width, mel_bins, _ = weights["conv1.weight"].shape
        feed_forward = len(weights["layers.0.fc1.weight"])
    except (KeyError, ValueError):
        raise ValueError(f"{folder}: holds no Whisper encoder (conv1.weight, layers.0.fc1.weight)") from None
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    return Encoder(mel_bins, width, layers, heads, feed_forward, weights)


def _of_family(folder: Path, family: ModelFamily) -> Encoder:
    audio: Any = family.text_side_config(family.load_config(folder)).audio_config
    weights = {}
    for path in weight_files(folder):
        for name, stored in read_header(path)[0].items():
            kept = family.kept_name(name)
            if kept is not None and kept.startswith(family.encoder_prefixes):
                weights[kept] = read_tensor(stored)
    if not weights:
        raise ValueError(f"{folder}: holds no tensor {' or '.join(family.encoder_prefixes)}...; not a {family.name}")
    return Encoder(
        audio.num_mel_bins, audio.d_model, audio.encoder_layers, audio.encoder_attention_heads, audio.encoder_ffn_dim,
        weights, family.name, getattr(audio, "n_window", 0),
    )  # fmt: skip


def _tensors(folder: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    found = {}
    for path in weight_files(folder):
        for name, stored in read_header(path)[0].items():
            prefix = next((p for p in prefixes if name.startswith(p)), None)
            if prefix is not None:
                found[name.removeprefix(prefix)] = read_tensor(stored)
    return found


def read_tensor(stored: StoredTensor) -> Tensor:
    """A whole tensor in float32."""
    if stored.dtype not in DTYPES:
        raise ValueError(
            f"{stored.path}: tensor {stored.name} is of type {stored.dtype}; weights must be floating point"
        )
    with stored.path.open("rb") as file:
        file.seek(stored.start)
        raw = bytearray(file.read(stored.end - stored.start))
    return torch.frombuffer(raw, dtype=DTYPES[stored.dtype]).reshape(stored.shape).float()
