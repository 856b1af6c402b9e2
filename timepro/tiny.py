"""A tiny checkpoint of the real Qwen2.5-Omni thinker classes, with a tokenizer trained on the spot.

It stands in for the published checkpoints where those cannot be had: the same classes, the same file layout, the
same key names, so that transformers, vLLM and this project load it from one folder as they load the real thing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timepro.astp import CONFIG_KEY, AstpLayout
from timepro.embeddings import initial_timestamps
from timepro.timestamps import TimestampVocabulary

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
AUDIO_TOKENS = {"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
VISION_TOKENS = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}
# Messages in, the published models' turn format out; audio placeholders are already part of the content.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class TimestampsConfig:
    """The timestamp vocabulary to build."""

    stride: float = 0.04
    duration: float = 30.0


@dataclass
class TinyModelConfig:
    """Sizes of the tiny thinker. The defaults learn to detect events within minutes on one CPU core."""

    hidden_size: int = 128
    layers: int = 2
    heads: int = 4  # head_dim 32: vLLM's CPU attention takes no smaller one
    key_value_heads: int = 2
    feed_forward: int = 256
    rope_theta: float = 1e4
    encoder_width: int = 96
    encoder_layers: int = 2
    encoder_heads: int = 4
    encoder_feed_forward: int = 192
    encoder_window: int = 100  # audio frames a block attends over, before pooling: 2 s, as in the published models
    tie_word_embeddings: bool = False
    timestamps: TimestampsConfig = field(default_factory=TimestampsConfig)
    timestamp_init: str = "smooth"
    astp: bool = True
    astp_every: int = 1
    astp_position: str = "after"
    answer_style: str = "timestamps"
    seed: int = 0


def build_tokenizer(words: Iterable[str], texts: Iterable[str], vocabulary: TimestampVocabulary) -> Any:
    """Train a byte-level BPE tokenizer and add the special and timestamp tokens.

    Args:
        words: labels that shall become one token each (`glass_breaking`).
        texts: sentences of prompts and captions.
        vocabulary: timestamps, added last, so that their ids are consecutive.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = list(words)
    # Digits stay single, as in Qwen's vocabulary; a word with underscores stays whole, so that a label is one token.
    pieces = Regex(r" ?[\p{L}_]+|\p{N}| ?[^\s\p{L}\p{N}_]+|\s+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Words are repeated so that their merges come first; the size is a ceiling that the small corpus does not reach.
    corpus = [word for word in words for _ in range(50)] + list(texts) + ["system", "user", "assistant", "none"] * 10
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=2048, initial_alphabet=alphabet, show_progress=False)
    )
    specials = [END_OF_TEXT, TURN_START, TURN_END, *AUDIO_TOKENS.values(), *VISION_TOKENS.values()]
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    # Timestamps are ordinary added tokens, not special ones: an answer written in them must survive decoding.
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in vocabulary.tokens()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=32768,
        extra_special_tokens=AUDIO_TOKENS | VISION_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def build_tiny_checkpoint(folder: Path, config: TinyModelConfig, words: Iterable[str], texts: Iterable[str]) -> None:
    """Write a tiny random checkpoint: configuration, weights, tokenizer, processor.

    Args:
        folder: made here; must not hold a checkpoint yet.
        words: labels that become single tokens.
        texts: what else the tokenizer shall know.

    Raises:
        ValueError: the folder holds a checkpoint already.
    """
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} already holds a checkpoint; give another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = TimestampVocabulary(config.timestamps.stride, config.timestamps.duration)
    tokenizer = build_tokenizer(words, texts, vocabulary)
    token_id = tokenizer.convert_tokens_to_ids
    banned = [END_OF_TEXT, TURN_START, *AUDIO_TOKENS.values(), *VISION_TOKENS.values()]
    timestamp_ids = [token_id(t) for t in vocabulary.tokens()]
    banned_ids = [token_id(t) for t in banned] + (timestamp_ids if config.answer_style == "digits" else [])
    vocabulary_rows = -(-len(tokenizer) // 64) * 64  # the padded rows name no token: never to be sampled either
    banned_ids += list(range(len(tokenizer), vocabulary_rows))
    layout = AstpLayout(
        enabled=config.astp,
        first_token_id=timestamp_ids[0],
        stride=config.timestamps.stride,
        duration=config.timestamps.duration,
        every=config.astp_every,
        position=config.astp_position,
        banned_token_ids=tuple(banned_ids),
        answer_style=config.answer_style,
    )
    thinker = _thinker_config(config, tokenizer, vocabulary_rows)
    setattr(thinker, CONFIG_KEY, layout.to_config())
    model = _initialised_model(thinker, config, tokenizer, vocabulary)
    _write(folder, thinker, model, tokenizer, config)


def _thinker_config(config: TinyModelConfig, tokenizer: Any, vocabulary_rows: int) -> Any:
    from transformers import Qwen2_5OmniThinkerConfig

    token_id = tokenizer.convert_tokens_to_ids
    half = config.hidden_size // config.heads // 2
    first = half // 4
    second = (half - first) // 2
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
        text_config=dict(
            vocab_size=vocabulary_rows,
            hidden_size=config.hidden_size,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            max_position_embeddings=32768,
            tie_word_embeddings=config.tie_word_embeddings,
            rope_parameters=dict(
                rope_type="default", rope_theta=config.rope_theta, mrope_section=[first, second, half - first - second]
            ),
            eos_token_id=token_id(TURN_END),
            pad_token_id=token_id(END_OF_TEXT),
        ),
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


@torch.no_grad()
def _initialised_model(
    thinker: Any, config: TinyModelConfig, tokenizer: Any, vocabulary: TimestampVocabulary
) -> nn.Module:
    """Fan-in initialisation: the published models' constant 0.02 suits widths in the thousands, not in the hundreds."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(config.seed)
    model = Qwen2_5OmniThinkerForConditionalGeneration(thinker).float()
    embeddings = model.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        if name.startswith("visual") or parameter.dim() < 2:
            continue
        if parameter is embeddings or name == "lm_head.weight":
            parameter.normal_(0.0, config.hidden_size**-0.5)
        else:
            writes_residual = any(part in name for part in ("o_proj", "down_proj", "out_proj", "fc2"))
            parameter.normal_(0.0, parameter[0].numel() ** -0.5 * (0.5 if writes_residual else 1.0))
    first = tokenizer.convert_tokens_to_ids(vocabulary.token(0))
    generator = torch.Generator().manual_seed(config.seed)
    rows = initial_timestamps(embeddings[:first], tokenizer, vocabulary, config.timestamp_init, generator)
    embeddings[first : first + vocabulary.size] = rows
    if not config.tie_word_embeddings:
        model.lm_head.weight.copy_(embeddings)  # an answer's time starts close to the prompt's spelling of it
    return model.eval()


def _write(folder: Path, thinker: Any, model: nn.Module, tokenizer: Any, config: TinyModelConfig) -> None:
    from safetensors.torch import save_file
    from transformers import (
        GenerationConfig,
        Qwen2_5OmniConfig,
        Qwen2_5OmniProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    # The published configuration has a talker; nothing here builds it. Its token ids must lie in its vocabulary.
    token_names = (
        "tts_text_start",
        "tts_text_end",
        "tts_text_pad",
        "vision_start",
        "vision_end",
        "audio_start",
        "audio_end",
    )
    talker = dict(
        num_hidden_layers=1, hidden_size=64, embedding_size=64, intermediate_size=64, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, **{f"{name}_token_id": i for i, name in enumerate(token_names)},
    )  # fmt: skip
    whole = Qwen2_5OmniConfig(
        thinker_config=thinker.to_dict(),
        talker_config=talker,
        token2wav_config={},
        enable_audio_output=False,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    whole.architectures = ["Qwen2_5OmniModel"]
    whole.dtype = "float32"
    whole.save_pretrained(folder)
    weights = {f"thinker.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del weights["thinker.lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stop = tokenizer.convert_tokens_to_ids(TURN_END)
    GenerationConfig(eos_token_id=[stop], pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
    vision = dict(patch_size=14, merge_size=2, temporal_patch_size=2)
    Qwen2_5OmniProcessor(
        Qwen2VLImageProcessor(**vision),
        Qwen2VLVideoProcessor(**vision),
        WhisperFeatureExtractor(feature_size=128, return_attention_mask=True),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    if CONFIG_KEY not in json.loads((folder / "config.json").read_text())["thinker_config"]:
        raise RuntimeError(f"transformers dropped {CONFIG_KEY!r} from {folder / 'config.json'}: unsupported version")
