"""Sizes that the tiny models of several families share, as arguments of their Hugging Face configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timepro.families.base import SpecialTokens

if TYPE_CHECKING:
    from timepro.tiny.config import TinyModelConfig


def decoder_sizes(config: TinyModelConfig, tokens: SpecialTokens, tokenizer: Any, rows: int) -> dict[str, Any]:
    """A Qwen2 decoder; `rows` is the padded vocabulary."""
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
        eos_token_id=tokenizer.convert_tokens_to_ids(tokens.turn_end),
        pad_token_id=tokenizer.convert_tokens_to_ids(tokens.end_of_text),
    )


def encoder_sizes(config: TinyModelConfig) -> dict[str, Any]:
    """A Whisper encoder."""
    return dict(
        num_mel_bins=config.encoder_mel_bins,
        encoder_layers=config.encoder_layers,
        encoder_attention_heads=config.encoder_heads,
        encoder_ffn_dim=config.encoder_feed_forward,
        d_model=config.encoder_width,
        max_source_positions=1500,
    )
