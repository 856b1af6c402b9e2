"""The tiny Qwen2-Audio."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timepro.families.base import END_OF_TEXT
from timepro.families.qwen2_audio import Qwen2Audio
from timepro.tiny.config import TinyModelConfig
from timepro.tiny.decoder import text_settings, write_weights
from timepro.tiny.tokenizer import CHAT_TEMPLATE

_LONGEST_TIMESCALE = 10_000.0


def model_config(config: TinyModelConfig, tokenizer: Any, rows: int) -> Any:
    """The model's configuration; `rows` is the padded vocabulary."""
    from transformers import Qwen2AudioConfig

    return Qwen2AudioConfig(
        audio_config=dict(
            num_mel_bins=128,
            encoder_layers=config.encoder_layers,
            encoder_attention_heads=config.encoder_heads,
            encoder_ffn_dim=config.encoder_feed_forward,
            d_model=config.encoder_width,
            max_source_positions=1500,
        ),
        text_config=text_settings(config, tokenizer, rows),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        tie_word_embeddings=config.tie_word_embeddings,
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    )


@torch.no_grad()
def new_model(model_config: Any) -> nn.Module:
    """The model with the classes' own random weights, and the encoder's fixed sinusoids for positions."""
    from transformers import Qwen2AudioForConditionalGeneration

    model = Qwen2AudioForConditionalGeneration(model_config).float()
    positions = model.model.audio_tower.embed_positions.weight
    n, width = positions.shape
    # Whisper's (arXiv 2212.04356): sines, then cosines, over timescales up to 10,000 positions.
    timescales = torch.exp(-math.log(_LONGEST_TIMESCALE) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(n)[:, None] * timescales[None]
    positions.copy_(torch.cat([angles.sin(), angles.cos()], dim=1))
    return model


def write(folder: Path, model_config: Any, model: nn.Module, tokenizer: Any, config: TinyModelConfig) -> None:
    """Write the folder under the published names (`save_pretrained` writes others, which vLLM does not know)."""
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    model_config.architectures = ["Qwen2AudioForConditionalGeneration"]
    model_config.dtype = "float32"
    model_config.save_pretrained(folder)
    weights = {Qwen2Audio().checkpoint_name(name): tensor for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del weights["language_model.lm_head.weight"]
    write_weights(folder, weights, tokenizer)
    extractor = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE).save_pretrained(folder)
