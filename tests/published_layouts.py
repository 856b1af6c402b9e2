"""What the published checkpoints hold, tensor by tensor, at full size; as folders whose weight files are holes.

The names and shapes are written down here from the hub's weight indices, not read off the classes that load them.
That nothing is missing or misnamed is seen by sums: with talker and vocoder, the numbers in a checkpoint are exactly
those that its page on the hub counts (`PARAMETERS`).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch

from timepro.astp import AstpLayout
from timepro.embeddings import padded_rows
from timepro.families import ModelFamily, family_named
from timepro.families.published import PUBLISHED
from timepro.init_model import with_timestamps

Shapes = dict[str, tuple[int, ...]]
NAMES = [one.name for one in PUBLISHED]
CONFIGS = {one.name: one.config for one in PUBLISHED}
# Of the repositories Qwen/Qwen2.5-Omni-7B (revision ae9e169), Qwen/Qwen2.5-Omni-3B (f75b40e) and
# Qwen/Qwen2-Audio-7B-Instruct: the numbers in all their tensors, and in how many files these lie.
PARAMETERS = {
    "Qwen2.5-Omni-7B": 10_732_225_440, "Qwen2.5-Omni-3B": 5_537_120_672, "Qwen2-Audio-7B-Instruct": 8_397_094_912
}  # fmt: skip
FILES = {"Qwen2.5-Omni-7B": 5, "Qwen2.5-Omni-3B": 3, "Qwen2-Audio-7B-Instruct": 5}
# `talker_config` of their `config.json`; the layers are those of a Qwen2 decoder.
TALKERS = {
    "Qwen2.5-Omni-7B": dict(
        embedding_size=3584, hidden_size=896, intermediate_size=18944, num_hidden_layers=24, num_attention_heads=12,
        num_key_value_heads=4, head_dim=128, vocab_size=8448,
    ),
    "Qwen2.5-Omni-3B": dict(
        embedding_size=2048, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, head_dim=64, vocab_size=8448,
    ),
}  # fmt: skip
TIMESTAMPS = 750


def family(name: str) -> ModelFamily:
    return family_named(CONFIGS[name]["model_type"], "the published family")


def published(name: str) -> Shapes:
    """The tensors that this project keeps, under their published names: all but those that answer in speech."""
    config = CONFIGS[name]
    if config["model_type"] == "qwen2_audio":
        audio, text = config["audio_config"], config["text_config"]
        shapes = _encoder("audio_tower.", audio) | _decoder("language_model.model.", text)
        shapes["audio_tower.embed_positions.weight"] = (audio["max_source_positions"], audio["d_model"])
        shapes |= _linear("multi_modal_projector.linear", text["hidden_size"], audio["d_model"])
        return shapes | {"language_model.lm_head.weight": (text["vocab_size"], text["hidden_size"])}
    thinker = config["thinker_config"]
    audio, text = thinker["audio_config"], thinker["text_config"]
    width = text["hidden_size"]
    shapes = _encoder("thinker.audio_tower.", audio) | _linear("thinker.audio_tower.proj", width, audio["d_model"])
    shapes["thinker.audio_tower.audio_bos_eos_token.weight"] = (2, width)
    shapes |= _vision("thinker.visual.", thinker["vision_config"]) | _decoder("thinker.model.", text)
    return shapes | {"thinker.lm_head.weight": (text["vocab_size"], width)}


def talker(name: str) -> Shapes:
    """What answers in speech behind the thinker, without the vocoder."""
    config = TALKERS[name]
    width, inputs = config["hidden_size"], config["embedding_size"]
    shapes = _decoder("talker.model.", config) | _linear("talker.thinker_to_talker_proj", width, inputs)
    shapes["talker.model.embed_tokens.weight"] = (config["vocab_size"], inputs)
    return shapes | {"talker.codec_head.weight": (config["vocab_size"], width)}


def with_rows(name: str) -> Shapes:
    """As `timepro init-model` leaves them: more rows in embeddings and head."""
    shapes, own = published(name), family(name)
    for matrix in (own.embedding_name, own.head_name):
        shapes[matrix] = (_rows(name), shapes[matrix][1])
    return shapes


def numbers(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def without(value: Any, key: str) -> Any:
    """A configuration without a key, wherever it stands."""
    if not isinstance(value, dict):
        return value
    return {name: without(inner, key) for name, inner in value.items() if name != key}


def write_folder(name: str, folder: Path) -> Shapes:
    """A checkpoint folder as `timepro init-model` writes it, in shards with an index; its tensors."""
    own, shapes = family(name), with_rows(name)
    first = _rows(name) - TIMESTAMPS
    layout = AstpLayout(first_token_id=first, banned_token_ids=tuple(range(first, _rows(name))))
    config = own.whole_config(without(CONFIGS[name], "tie_word_embeddings"))  # published ones need not say it
    config = with_timestamps(config, own, layout, _rows(name), tied=own.head_name not in shapes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_hollow(folder, shapes, FILES[name])
    return shapes


def write_hollow(folder: Path, shapes: Shapes, files: int) -> None:
    """Weight files with holes for weights, and their index."""
    names, weight_map = list(shapes), {}
    for number in range(files):
        part = names[number * len(names) // files : (number + 1) * len(names) // files]
        file = f"model-{number + 1:05}-of-{files:05}.safetensors"
        _write_file(folder / file, {key: shapes[key] for key in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _write_file(path: Path, shapes: Shapes) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def _rows(name: str) -> int:
    _, decoder = family(name).config_parts(CONFIGS[name])
    return padded_rows(decoder["vocab_size"] + TIMESTAMPS)


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _decoder(prefix: str, text: dict[str, Any]) -> Shapes:
    """Qwen2: biases on queries, keys and values alone."""
    width, inner = text["hidden_size"], text["intermediate_size"]
    head = text.get("head_dim", width // text["num_attention_heads"])
    queries, keys = text["num_attention_heads"] * head, text["num_key_value_heads"] * head
    shapes: Shapes = {f"{prefix}embed_tokens.weight": (text["vocab_size"], width), f"{prefix}norm.weight": (width,)}
    for number in range(text["num_hidden_layers"]):
        layer = f"{prefix}layers.{number}."
        shapes |= {f"{layer}{norm}.weight": (width,) for norm in ("input_layernorm", "post_attention_layernorm")}
        for part, outputs in (("q", queries), ("k", keys), ("v", keys)):
            shapes |= _linear(f"{layer}self_attn.{part}_proj", outputs, width)
        shapes |= _linear(f"{layer}self_attn.o_proj", width, queries, bias=False)
        for part, sizes in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
            shapes |= _linear(f"{layer}mlp.{part}_proj", *sizes, bias=False)
    return shapes


def _encoder(prefix: str, audio: dict[str, Any]) -> Shapes:
    """Whisper's: no bias on keys."""
    width, inner = audio["d_model"], audio["encoder_ffn_dim"]
    shapes: Shapes = {}
    for number, inputs in ((1, audio["num_mel_bins"]), (2, width)):
        shapes |= {f"{prefix}conv{number}.weight": (width, inputs, 3), f"{prefix}conv{number}.bias": (width,)}
    for number in range(audio["encoder_layers"]):
        layer = f"{prefix}layers.{number}."
        for part in ("q", "k", "v", "out"):
            shapes |= _linear(f"{layer}self_attn.{part}_proj", width, width, bias=part != "k")
        shapes |= _linear(f"{layer}fc1", inner, width) | _linear(f"{layer}fc2", width, inner)
        shapes |= _norm(f"{layer}self_attn_layer_norm", width) | _norm(f"{layer}final_layer_norm", width)
    norm = "layer_norm" if prefix == "audio_tower." else "ln_post"  # Qwen2-Audio, Qwen2.5-Omni
    return shapes | _norm(f"{prefix}{norm}", width)


def _vision(prefix: str, vision: dict[str, Any]) -> Shapes:
    """Qwen2.5-VL's, with queries, keys and values apart."""
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    patch, merged = vision["patch_size"], width * vision["spatial_merge_size"] ** 2
    shapes: Shapes = {f"{prefix}patch_embed.proj.weight": (width, 3, vision["temporal_patch_size"], patch, patch)}
    for number in range(vision["depth"]):
        block = f"{prefix}blocks.{number}."
        shapes |= {f"{block}{norm}.weight": (width,) for norm in ("norm1", "norm2")}
        for part in ("q", "k", "v", "proj"):
            shapes |= _linear(f"{block}attn.{part}", width, width)
        for part, sizes in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
            shapes |= _linear(f"{block}mlp.{part}_proj", *sizes)
    shapes |= {f"{prefix}merger.ln_q.weight": (width,)} | _linear(f"{prefix}merger.mlp.0", merged, merged)
    return shapes | _linear(f"{prefix}merger.mlp.2", vision["out_hidden_size"], merged)
