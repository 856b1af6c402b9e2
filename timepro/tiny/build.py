"""From settings to a checkpoint folder: tokenizer, layout, initial weights; the family's module writes its files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timepro.astp import CONFIG_KEY, AstpLayout
from timepro.embeddings import initial_timestamps, padded_rows
from timepro.families.base import END_OF_TEXT, TURN_START
from timepro.timestamps import TimestampVocabulary
from timepro.tiny import qwen2_5_omni, qwen2_audio
from timepro.tiny.config import TinyModelConfig
from timepro.tiny.tokenizer import AUDIO_TOKENS, VISION_TOKENS, build_tokenizer

_FAMILIES = {"qwen2_5_omni": qwen2_5_omni, "qwen2_audio": qwen2_audio}


def build_tiny_checkpoint(
    folder: Path, config: TinyModelConfig, words: Iterable[str], texts: Iterable[str], as_published: bool = False
) -> None:
    """Write a tiny random checkpoint: configuration, weights, tokenizer, processor.

    Args:
        folder: made here; must not hold a checkpoint yet.
        words: labels that become single tokens.
        texts: what else the tokenizer shall know.
        as_published: without any timestamps, what `timepro init-model` starts from.

    Raises:
        ValueError: the folder holds a checkpoint already, or the family is unknown.
    """
    if config.family not in _FAMILIES:
        raise ValueError(f"model.tiny.family is {config.family!r}; it must be one of {', '.join(_FAMILIES)}")
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} already holds a checkpoint; give another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    family = _FAMILIES[config.family]
    vocabulary = TimestampVocabulary(config.timestamps.stride, config.timestamps.duration)
    tokenizer = build_tokenizer(words, texts, None if as_published else vocabulary)
    rows = padded_rows(len(tokenizer))
    model_config = family.model_config(config, tokenizer, rows)
    if not as_published:
        setattr(model_config, CONFIG_KEY, _layout(config, tokenizer, vocabulary, rows).to_config())
    model = _initialised_model(family.new_model(model_config), config)
    if not as_published:
        _initialise_timestamps(model, config, tokenizer, vocabulary)
    family.write(folder, model_config, model, tokenizer, config)
    if not as_published:
        _check_layout_is_kept(folder)


def _layout(config: TinyModelConfig, tokenizer: Any, vocabulary: TimestampVocabulary, rows: int) -> AstpLayout:
    token_id = tokenizer.convert_tokens_to_ids
    banned = [END_OF_TEXT, TURN_START, *AUDIO_TOKENS.values(), *VISION_TOKENS.values()]
    timestamp_ids = [token_id(t) for t in vocabulary.tokens()]
    banned_ids = [token_id(t) for t in banned] + (timestamp_ids if config.answer_style == "digits" else [])
    banned_ids += list(range(len(tokenizer), rows))  # the padded rows name no token: never to be sampled either
    return AstpLayout(
        enabled=config.astp,
        first_token_id=timestamp_ids[0],
        stride=config.timestamps.stride,
        duration=config.timestamps.duration,
        every=config.astp_every,
        position=config.astp_position,
        banned_token_ids=tuple(banned_ids),
        answer_style=config.answer_style,
    )


@torch.no_grad()
def _initialised_model(model: nn.Module, config: TinyModelConfig) -> nn.Module:
    """Fan-in initialisation: the published models' constant 0.02 suits widths in the thousands, not in the hundreds."""
    torch.manual_seed(config.seed)
    embeddings = model.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        if name.startswith("visual") or "embed_positions" in name or parameter.dim() < 2:
            continue
        if parameter is embeddings or name == "lm_head.weight":
            parameter.normal_(0.0, config.hidden_size**-0.5)
        else:
            writes_residual = any(part in name for part in ("o_proj", "down_proj", "out_proj", "fc2"))
            parameter.normal_(0.0, parameter[0].numel() ** -0.5 * (0.5 if writes_residual else 1.0))
    return model.eval()


@torch.no_grad()
def _initialise_timestamps(
    model: Any, config: TinyModelConfig, tokenizer: Any, vocabulary: TimestampVocabulary
) -> None:
    embeddings = model.get_input_embeddings().weight
    first = tokenizer.convert_tokens_to_ids(vocabulary.token(0))
    generator = torch.Generator().manual_seed(config.seed)
    rows = initial_timestamps(embeddings[:first], tokenizer, vocabulary, config.timestamp_init, generator)
    embeddings[first : first + vocabulary.size] = rows
    if not config.tie_word_embeddings:
        model.lm_head.weight.copy_(embeddings)  # an answer's time starts close to the prompt's spelling of it


def _check_layout_is_kept(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    if CONFIG_KEY not in stored.get("thinker_config", stored):
        raise RuntimeError(f"transformers dropped {CONFIG_KEY!r} from {folder / 'config.json'}: unsupported version")
