"""The prompt of a sample, in the words of the checkpoint's own chat template.

A clip is a part of a message, as in the chat interfaces of transformers and vLLM, and the template decides how it is
written. So the same question has the same prompt in training, on a worker, and in whatever else serves the checkpoint.
"""

from __future__ import annotations

from typing import Any

from timepro.families import SpecialTokens


def messages(question: str, before: str = "", clips: int = 1) -> list[dict[str, Any]]:
    """The chat of one sample: the clip, then the question.

    Args:
        before: text in front of the clip.
        clips: how many there are; the last one is asked about.
    """
    # Templates know a clip by its type or by its key; the key's value is never opened.
    content = [*[{"type": "text", "text": before}] * bool(before), *[{"type": "audio", "audio": "clip"}] * clips]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def prompt_ids(tokenizer: Any, tokens: SpecialTokens, question: str, before: str = "", clips: int = 1) -> list[int]:
    """Token ids of a prompt that opens the answer, with one audio placeholder a clip.

    Args:
        tokenizer: the checkpoint's, with its chat template.
        tokens: the family's special tokens.
        before, clips: as `messages` takes them.

    Raises:
        ValueError: the tokenizer's chat template does not write one placeholder for a clip.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: its tokenizer has no chat template; make it with timepro init-model"
        )
    encoded = tokenizer.apply_chat_template(
        messages(question, before, clips), add_generation_prompt=True, return_dict=True
    )
    ids = list(encoded["input_ids"])
    found = ids.count(tokenizer.convert_tokens_to_ids(tokens.audio))
    if found != clips:
        raise ValueError(
            f"{tokenizer.name_or_path}: its chat template writes {tokens.audio} {found} times for a message with "
            f"{clips} clip{'s' * (clips > 1)}; it must write content that is given in parts (see the published "
            "folder's chat template)"
        )
    return ids
