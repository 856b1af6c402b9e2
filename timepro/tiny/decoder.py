"""What the tiny models of both families share: the decoder's sizes, and how folders are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from timepro.families.base import END_OF_TEXT, TURN_END
from timepro.tiny.config import TinyModelConfig


def text_settings(config: TinyModelConfig, tokenizer: Any, rows: int) -> dict[str, Any]:
    """Settings of the Qwen2 decoder; `rows` is the padded vocabulary."""
    return dict(
        vocab_size=rows,
        hidden_size=config.hidden_size,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=config.tie_word_embeddings,
        rope_parameters=dict(rope_type="default", rope_theta=config.rope_theta),
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    )


def write_weights(folder: Path, weights: Mapping[str, Tensor], tokenizer: Any) -> None:
    """Write weights under their published names, and what generation stops at."""
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stop = tokenizer.convert_tokens_to_ids(TURN_END)
    GenerationConfig(eos_token_id=[stop], pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
