"""A small tokenizer, trained on the spot, that spells the published models' special tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from timepro.families.base import END_OF_TEXT, TURN_END, TURN_START
from timepro.timestamps import TimestampVocabulary

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


def build_tokenizer(words: Iterable[str], texts: Iterable[str], vocabulary: TimestampVocabulary | None) -> Any:
    """Train a byte-level BPE tokenizer and add the special and timestamp tokens.

    Args:
        words: labels that shall become one token each (`glass_breaking`).
        texts: sentences of prompts and captions.
        vocabulary: timestamps, added last, so that their ids are consecutive; None: as published, without any.
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
    if vocabulary is not None:
        # Ordinary added tokens, not special ones: an answer written in them must survive decoding.
        tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in vocabulary.tokens()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=32768,
        extra_special_tokens=AUDIO_TOKENS | VISION_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )
