"""A small tokenizer, trained on the spot, that spells the published models' special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from timepro.families import SpecialTokens
from timepro.timestamps import TimestampVocabulary


def chat_template(tokens: SpecialTokens) -> str:
    """Messages in, the published models' turn format out. Content is text, or a list of text and audio parts."""
    return (
        f"{{% for message in messages %}}{tokens.turn_start}{{{{ message['role'] }}}}\n"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}"
        f"{{% elif part['type'] in ('audio', 'audio_url', 'input_audio') %}}{tokens.clip}"
        "{% else %}{{ raise_exception('this model takes text and audio, no part of type ' ~ part['type']) }}{% endif %}"
        f"{{% endfor %}}{{% endif %}}{tokens.turn_end}\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{tokens.turn_start}assistant\n{{% endif %}}"
    )


def build_tokenizer(
    words: Iterable[str],
    texts: Iterable[str],
    vocabulary: TimestampVocabulary | None,
    special: SpecialTokens = SpecialTokens(),  # noqa: B008 - frozen
    at_least: int = 0,
) -> Any:
    """Train a byte-level BPE tokenizer and add the special and timestamp tokens.

    Args:
        words: labels that shall become one token each (`glass_breaking`).
        texts: sentences of prompts and captions.
        vocabulary: timestamps, added last, so that their ids are consecutive; None: as published, without any.
        special: the family's special tokens.
        at_least: tokens without the timestamps; fillers that no text gives make up the number.
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
    tokenizer = _filled(tokenizer, at_least - len(special.all()))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special.all()])
    if vocabulary is not None:
        # Ordinary added tokens, not special ones: an answer written in them must survive decoding.
        tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in vocabulary.tokens()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special.turn_end,
        pad_token=special.end_of_text,
        model_max_length=32768,
        extra_special_tokens=dict(special.named),
        chat_template=chat_template(special),
    )


def _filled(tokenizer: Any, size: int) -> Any:
    """The tokenizer with a vocabulary of at least so many, every second filler with a space before it."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for number in range(size - len(vocabulary)):
        vocabulary[f"{chr(0x120) if number % 2 else ''}filler{number}"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(state))
