"""From settings to a checkpoint folder: tokenizer, layout, initial weights; the family's own files are its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.astp import CONFIG_KEY, AstpLayout
from timepro.families import ModelFamily, family_named
from timepro.timestamps import TimestampVocabulary, vocabulary_of
from timepro.tiny.config import TinyModelConfig
from timepro.tiny.tokenizer import build_tokenizer, chat_template

if TYPE_CHECKING:
    from torch import nn


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
    from timepro.embeddings import padded_rows

    family = family_named(config.family, "model.tiny.family")
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} already holds a checkpoint; give another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = vocabulary_of(config.timestamps.style, config.timestamps.stride, config.timestamps.duration)
    timestamps = None if as_published else vocabulary
    tokenizer = build_tokenizer(words, texts, timestamps, family.tokens, config.vocabulary)
    rows = padded_rows(len(tokenizer))
    model_config = family.tiny_config(config, tokenizer, rows)
    if not as_published:
        layout = _layout(config, family, tokenizer, vocabulary, rows)
        setattr(family.text_side_config(model_config), CONFIG_KEY, layout.to_config())
    model = initialised_model(family, model_config, config)
    if not as_published:
        _initialise_timestamps(model, config, tokenizer, vocabulary)
    family.write_tiny(folder, model_config, tokenizer, chat_template(family.tokens))
    write_weights(folder, family, model, config, tokenizer)
    if not as_published:
        _check_layout_is_kept(folder, family)


def _layout(
    config: TinyModelConfig, family: ModelFamily, tokenizer: Any, vocabulary: TimestampVocabulary, rows: int
) -> AstpLayout:
    token_id = tokenizer.convert_tokens_to_ids
    banned = [token for token in family.tokens.all() if token != family.tokens.turn_end]
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
        style=config.timestamps.style,
    )


def initialised_model(family: ModelFamily, model_config: Any, config: TinyModelConfig) -> nn.Module:
    """Fan-in initialisation: the published models' constant 0.02 suits widths in the thousands, not in the hundreds."""
    import torch

    torch.manual_seed(config.seed)  # for what keeps its class's own weights
    model = family.tiny_model(model_config)
    torch.manual_seed(config.seed)
    embeddings: Any = model.get_input_embeddings().weight  # type: ignore[operator]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("visual") or "embed_positions" in name or parameter.dim() < 2:
                continue
            if parameter is embeddings or name == "lm_head.weight":
                parameter.normal_(0.0, config.hidden_size**-0.5)
            else:
                writes_residual = any(part in name for part in ("o_proj", "down_proj", "out_proj", "fc2"))
                parameter.normal_(0.0, parameter[0].numel() ** -0.5 * (0.5 if writes_residual else 1.0))
    return model.eval()


def _initialise_timestamps(
    model: Any, config: TinyModelConfig, tokenizer: Any, vocabulary: TimestampVocabulary
) -> None:
    import torch

    from timepro.embeddings import initial_timestamps

    embeddings = model.get_input_embeddings().weight
    first = tokenizer.convert_tokens_to_ids(vocabulary.tokens()[0])
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        rows = initial_timestamps(embeddings[:first], tokenizer, vocabulary, config.timestamp_init, generator)
        embeddings[first : first + vocabulary.size] = rows
        if not config.tie_word_embeddings:
            model.lm_head.weight.copy_(embeddings)  # an answer's time starts close to the prompt's spelling of it


def write_weights(folder: Path, family: ModelFamily, model: nn.Module, config: TinyModelConfig, tokenizer: Any) -> None:
    """Write weights under their published names (`save_pretrained` may write others), and what generation stops at."""
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    weights = {family.checkpoint_name(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del weights[family.head_name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stop = tokenizer.convert_tokens_to_ids(family.tokens.turn_end)
    GenerationConfig(eos_token_id=[stop], pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)


def _check_layout_is_kept(folder: Path, family: ModelFamily) -> None:
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if CONFIG_KEY not in family.config_parts(stored)[0]:
        raise RuntimeError(f"transformers dropped {CONFIG_KEY!r} from {folder / 'config.json'}: unsupported version")
