"""The prompt of a sample, in the words of the checkpoint's own chat template.

A clip is a part of a message, as in the chat interfaces of transformers and vLLM, and the template decides how it is
written. So the same question has the same prompt in training, on a worker, and in whatever else serves the checkpoint.
"""

from __future__ import annotations

from typing import Any

from timepro.families import SpecialTokens


def messages(question: str) -> list[dict[str, Any]]:
    """The chat of one sample: the clip, then the question."""
    # Templates know a clip by its type or by its key; the key's value is never opened.
    return [{"role": "user", "content": [{"type": "audio", "audio": "clip"}, {"type": "text", "text": question}]}]


def prompt_ids(tokenizer: Any, tokens: SpecialTokens, question: str) -> list[int]:
    """Token ids of a prompt that opens the answer, with one audio placeholder.

    Args:
        tokenizer: the checkpoint's, with its chat template.
        tokens: the family's special tokens.

    Raises:
        ValueError: the tokenizer's chat template does not write one placeholder for a clip.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: its tokenizer has no chat template; make it with timepro init-model"
        )
    encoded = tokenizer.apply_chat_template(messages(question), add_generation_prompt=True, return_dict=True)
    ids = list(encoded["input_ids"])
    found = ids.count(tokenizer.convert_tokens_to_ids(tokens.audio))
    if found != 1:
        raise ValueError(
            f"{tokenizer.name_or_path}: its chat template writes {tokens.audio} {found} times for a message with one "
            "clip; it must write content that is given in parts (see the published folder's chat template)"
        )
    return ids
