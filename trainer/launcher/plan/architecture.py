"""A checkpoint's sizes, from its `config.json` alone: nothing is built and no weights are read.

Where the folder is absent, a published checkpoint of its name stands in (`timepro.families.published`), and for the
model that is built here its settings do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timepro.families import ModelFamily, family_named, family_of
from timepro.families.published import PUBLISHED, Published, published_named
from timepro.timestamps import TimestampVocabulary
from timepro.tiny.base import base_folder
from timepro.tiny.config import TinyModelConfig
from trainer.settings.model import ModelConfig

_ROW_MULTIPLE = 64  # embedding tables are padded to it
_TINY_VOCABULARY = 2048  # about what the tokenizer of the embedded data has, timestamps included


@dataclass(frozen=True)
class Decoder:
    """A Qwen2-style decoder.

    Args:
        hidden: H; `feed_forward`: F; `head_dim`: D.
        rows: V of the embeddings, timestamps included.
        tied: whether the output head is the embeddings' matrix.
    """

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    feed_forward: int
    rows: int
    tied: bool

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of a layer's matrices, by their published names."""
        queries, keys = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries), "k_proj": (self.hidden, keys), "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden), "gate_proj": (self.hidden, self.feed_forward),
            "up_proj": (self.hidden, self.feed_forward), "down_proj": (self.feed_forward, self.hidden),
        }  # fmt: skip

    @property
    def layer_parameters(self) -> int:
        """Matrices, the biases of queries, keys and values, and two norms."""
        biases = (self.heads + 2 * self.key_value_heads) * self.head_dim
        return sum(i * o for i, o in self.linears.values()) + biases + 2 * self.hidden

    @property
    def table(self) -> int:
        """Numbers in the embeddings, and in an untied head."""
        return self.rows * self.hidden

    @property
    def parameters(self) -> int:
        """Layers, last norm, embeddings, and the head where it is a matrix of its own."""
        return self.layers * self.layer_parameters + self.hidden + self.table * (1 if self.tied else 2)

    @property
    def cache_numbers(self) -> int:
        """Numbers that a token puts into the key-value cache: a key and a value a layer."""
        return 2 * self.layers * self.key_value_heads * self.head_dim

    def adapter_parameters(self, rank: int, targets: list[str]) -> int:
        """A and B of every target in every layer: R (I + O) each (arXiv 2106.09685)."""
        return self.layers * sum(rank * sum(self.linears[name]) for name in targets if name in self.linears)


@dataclass(frozen=True)
class Encoder:
    """A Whisper encoder (arXiv 2212.04356) with its projection into the decoder."""

    width: int
    layers: int
    feed_forward: int
    parameters: int


@dataclass(frozen=True)
class Architecture:
    """What a plan needs to know of a checkpoint.

    Args:
        name: as it is shown: the folder, or what stands in for it.
        family: tells how many tokens a clip has.
        vision: numbers in the vision tower, which no process keeps, but every rank reads.
        dtype: of the checkpoint's files.
    """

    name: str
    family: ModelFamily
    decoder: Decoder
    encoder: Encoder
    vision: int
    dtype: str

    @property
    def parameters(self) -> int:
        return self.decoder.parameters + self.encoder.parameters + self.vision


def architecture_of(model: ModelConfig) -> Architecture:
    """The sizes of the checkpoint that an experiment starts from.

    Raises:
        ValueError: a folder that is neither there nor named like a published checkpoint, or has no whole `config.json`.
    """
    if not model.path:
        return _tiny(model.tiny) if model.tiny.from_scratch else of_folder(base_folder(model.tiny), model.tiny)
    folder = Path(model.path)
    if (folder / "config.json").is_file():
        return of_folder(folder)
    published = published_named(folder.name)
    if folder.is_dir() or published is None:
        known = ", ".join(one.name for one in PUBLISHED)
        raise ValueError(
            f"model.path={model.path} is {'without config.json' if folder.is_dir() else 'not there'}, so its sizes are "
            f"not known; name a checkpoint folder, or one that is called like {known}"
        )
    return of_published(published)


def of_published(published: Published) -> Architecture:
    """A published checkpoint with the timestamps that `timepro init-model` gives it."""
    config = published.config
    family = next(family for family in _families() if family.model_type == config["model_type"])
    _, text = family.config_parts(config)
    rows = text["vocab_size"] + TimestampVocabulary(0.04, 30.0).size
    text["vocab_size"] = -(-rows // _ROW_MULTIPLE) * _ROW_MULTIPLE
    return _of_config(published.name, family, config)


def of_folder(folder: Path, tiny: TinyModelConfig | None = None) -> Architecture:
    """A checkpoint folder's, by its `config.json`.

    Args:
        tiny: settings of the small base, which gives it timestamps when it is used.

    Raises:
        ValueError: an unknown family, or sizes that are not in the file.
    """
    family = family_of(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        return _of_config("the small base" if tiny else str(folder), family, config)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error} is missing, so the model's sizes are not known") from None


def _families() -> tuple[ModelFamily, ...]:
    from timepro.families.registry import all_families

    return all_families()


def _of_config(name: str, family: ModelFamily, config: dict[str, Any]) -> Architecture:
    side, text = family.config_parts(config)
    audio, heads = side["audio_config"], text.get("num_attention_heads", 32)
    decoder = Decoder(
        hidden=text.get("hidden_size", 4096),
        layers=text.get("num_hidden_layers", 32),
        heads=heads,
        key_value_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text.get("hidden_size", 4096) // heads,
        feed_forward=text["intermediate_size"],
        rows=text["vocab_size"],
        tied=bool(side.get("tie_word_embeddings", False)),
    )
    omni = "output_dim" in audio  # its projection is the encoder's, Qwen2-Audio's a module of its own
    encoder = _encoder(
        audio["d_model"], audio["encoder_layers"], audio["encoder_ffn_dim"], audio["num_mel_bins"],
        audio.get("max_source_positions", 1500), decoder.hidden, omni,
    )  # fmt: skip
    vision = _vision(side["vision_config"]) if "vision_config" in side else 0
    dtype = next((part[key] for part in (config, side, text) for key in ("dtype", "torch_dtype") if part.get(key)), "")
    return Architecture(name, family, decoder, encoder, vision, dtype or "float32")


def _encoder(width: int, layers: int, feed: int, mels: int, positions: int, hidden: int, omni: bool) -> Encoder:
    """Two convolutions of 3, then layers with biases on all matrices but the keys'; norm, projection.

    Qwen2.5-Omni computes its positions and has two embeddings for a clip's ends; Qwen2-Audio keeps Whisper's table.
    """
    layer = 4 * width * width + 3 * width + 2 * width * feed + feed + width + 4 * width
    convolutions = 3 * width * (mels + width) + 2 * width
    rest = 2 * width + width * hidden + hidden + (2 * hidden if omni else positions * width)
    return Encoder(width, layers, feed, layers * layer + convolutions + rest)


def _vision(vision: dict[str, Any]) -> int:
    """Qwen2.5-VL's tower (arXiv 2502.13923): patches, blocks with biases, a merger of 2 x 2 patches."""
    width, feed = vision["hidden_size"], vision["intermediate_size"]
    patch = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    block = 4 * (width * width + width) + 3 * width * feed + 2 * feed + width + 2 * width
    merged = width * vision["spatial_merge_size"] ** 2
    out = vision["out_hidden_size"]
    merger = width + merged * merged + merged + merged * out + out
    return patch * width + vision["depth"] * block + merger


def _tiny(tiny: TinyModelConfig) -> Architecture:
    decoder = Decoder(
        tiny.hidden_size, tiny.layers, tiny.heads, tiny.key_value_heads, tiny.hidden_size // tiny.heads,
        tiny.feed_forward, max(tiny.vocabulary, _TINY_VOCABULARY), tiny.tie_word_embeddings,
    )  # fmt: skip
    family = family_named(tiny.family, "model.tiny.family")
    encoder = _encoder(
        tiny.encoder_width, tiny.encoder_layers, tiny.encoder_feed_forward, 128, 1500, tiny.hidden_size,
        family.windowed_encoder,
    )  # fmt: skip
    return Architecture("the model built here", family, decoder, encoder, 0, "float32")
