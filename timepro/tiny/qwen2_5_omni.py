"""The tiny Qwen2.5-Omni thinker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from timepro.families.base import END_OF_TEXT
from timepro.tiny.config import TinyModelConfig
from timepro.tiny.decoder import text_settings, write_weights
from timepro.tiny.tokenizer import CHAT_TEMPLATE


def model_config(config: TinyModelConfig, tokenizer: Any, rows: int) -> Any:
    """The thinker's configuration; `rows` is the padded vocabulary."""
    from transformers import Qwen2_5OmniThinkerConfig

    token_id = tokenizer.convert_tokens_to_ids
    text = text_settings(config, tokenizer, rows)
    half = config.hidden_size // config.heads // 2
    first = half // 4
    second = (half - first) // 2
    text["rope_parameters"]["mrope_section"] = [first, second, half - first - second]
    return Qwen2_5OmniThinkerConfig(
        audio_config=dict(
            num_mel_bins=128,
            encoder_layers=config.encoder_layers,
            encoder_attention_heads=config.encoder_heads,
            encoder_ffn_dim=config.encoder_feed_forward,
            d_model=config.encoder_width,
            max_source_positions=1500,
            n_window=config.encoder_window,
            output_dim=config.hidden_size,
        ),
        # The published layout has a vision tower; the smallest one that its code accepts.
        vision_config=dict(
            depth=1,
            hidden_size=16,
            intermediate_size=16,
            num_heads=2,
            out_hidden_size=config.hidden_size,
            fullatt_block_indexes=[0],
            patch_size=14,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=112,
        ),
        text_config=text,
        audio_token_index=token_id("<|AUDIO|>"),
        image_token_index=token_id("<|IMAGE|>"),
        video_token_index=token_id("<|VIDEO|>"),
        audio_start_token_id=token_id("<|audio_bos|>"),
        audio_end_token_id=token_id("<|audio_eos|>"),
        vision_start_token_id=token_id("<|vision_bos|>"),
        vision_end_token_id=token_id("<|vision_eos|>"),
        user_token_id=token_id("user"),
        tie_word_embeddings=config.tie_word_embeddings,
        pad_token_id=token_id(END_OF_TEXT),
    )


def new_model(model_config: Any) -> nn.Module:
    """The model with the classes' own random weights."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    return Qwen2_5OmniThinkerForConditionalGeneration(model_config).float()


def write(folder: Path, model_config: Any, model: nn.Module, tokenizer: Any, config: TinyModelConfig) -> None:
    """Write the folder as the published one is: the thinker inside the whole model's configuration."""
    from transformers import (
        Qwen2_5OmniConfig,
        Qwen2_5OmniProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    # The published configuration has a talker; nothing here builds it. Its token ids must lie in its vocabulary.
    spoken = ("tts_text_start", "tts_text_end", "tts_text_pad")
    token_names = (*spoken, "vision_start", "vision_end", "audio_start", "audio_end")
    talker = dict(
        num_hidden_layers=1, hidden_size=64, embedding_size=64, intermediate_size=64, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, **{f"{name}_token_id": i for i, name in enumerate(token_names)},
    )  # fmt: skip
    whole = Qwen2_5OmniConfig(
        thinker_config=model_config.to_dict(),
        talker_config=talker,
        token2wav_config={},
        enable_audio_output=False,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    whole.architectures = ["Qwen2_5OmniModel"]
    whole.dtype = "float32"
    whole.save_pretrained(folder)
    weights = {f"thinker.{name}": tensor for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del weights["thinker.lm_head.weight"]
    write_weights(folder, weights, tokenizer)
    vision = dict(patch_size=14, merge_size=2, temporal_patch_size=2)
    Qwen2_5OmniProcessor(
        Qwen2VLImageProcessor(**vision),
        Qwen2VLVideoProcessor(**vision),
        WhisperFeatureExtractor(feature_size=128, return_attention_mask=True),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
