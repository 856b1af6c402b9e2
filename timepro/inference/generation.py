"""Token ids that a Hugging Face model answers a laid-out prompt with, by the same rules as a rollout worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from timepro.features import Processor
from timepro.inference.confidence import Written


def merged_embeds(processor: Processor, model: Any, ids: Sequence[int], frames: Tensor) -> Tensor:
    """(1, T, H): embeddings of T token ids, the clip's frames (F, H) in place of its placeholders."""
    tokens = torch.tensor([list(ids)], device=frames.device)
    embeds = model.get_input_embeddings()(tokens)
    return embeds.masked_scatter((tokens == processor.audio_token_id)[..., None], frames.to(embeds.dtype))


def generated(
    processor: Processor,
    model: Any,
    embeds: Tensor,
    max_tokens: int,
    n: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    """Answers to a prompt, each without its padding; the last token is the turn's end unless the answer was cut.

    What the folder's `generation_config.json` says of sampling and penalties is left out: workers do not read it.

    Args:
        embeds: (B, T, H); usually of one prompt, else of B as long as one another.
        n: answers to each, more than one only at a temperature above 0.
        temperature: 0 is greedy.
        seed: of the sampling; whoever draws random numbers in this process is not disturbed.
    """
    rows = _generate(processor, model, embeds, max_tokens, n, temperature, seed, scores=False).tolist()
    return [_until_end(row, processor.eos_token_id) for row in rows]


def written(
    processor: Processor,
    model: Any,
    embeds: Tensor,
    max_tokens: int,
    n: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Written]:
    """As `generated`, with the tokens' log-probabilities."""
    out = _generate(processor, model, embeds, max_tokens, n, temperature, seed, scores=True)
    # Token by token: all steps' scores over a large vocabulary at once would be gigabytes more.
    steps = [
        scores.float().log_softmax(-1).gather(-1, out.sequences[:, step : step + 1])
        for step, scores in enumerate(out.scores)
    ]
    logprobs = torch.cat(steps, 1).tolist()
    answers = [_until_end(row, processor.eos_token_id) for row in out.sequences.tolist()]
    return [Written(ids, values[: len(ids)]) for ids, values in zip(answers, logprobs, strict=True)]


@torch.no_grad()
def _generate(
    processor: Processor,
    model: Any,
    embeds: Tensor,
    max_tokens: int,
    n: int,
    temperature: float,
    seed: int,
    scores: bool,
) -> Any:
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    drawing = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "num_return_sequences": n}
    devices = [embeds.device] if embeds.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
            max_new_tokens=max_tokens,
            suppress_tokens=list(processor.layout.banned_token_ids),
            eos_token_id=processor.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
            return_dict_in_generate=scores,
            output_scores=scores,
            **(drawing if temperature > 0 else {"do_sample": False}),
        )


def _until_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids
