"""The published classes as reference: log-probabilities from transformers' own forward passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load_reference(family: str, folder: Path) -> Any:
    import transformers

    name = {
        "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
        "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    }[family]
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    if family == "qwen2_audio" and model.config.text_config.tie_word_embeddings:
        # No published checkpoint of this class is tied, and it would leave the head as it was made: random.
        model.lm_head.weight = model.get_input_embeddings().weight
    return model


@torch.no_grad()
def qwen2_audio_frames(model: Any, features: Tensor, n_mel: int) -> Tensor:
    """Frames (F, H) of one clip as `Qwen2AudioModel.forward` makes them: over 30 s, the padding masked.

    features: (128, M) with M >= n_mel, of which `n_mel` belong to the clip; padded here to 3,000.
    """
    from transformers.masking_utils import create_bidirectional_mask

    inner = model.model
    inputs = torch.nn.functional.pad(features, (0, 3000 - features.shape[-1]))[None]
    length, frames = inner.audio_tower._get_feat_extract_output_lengths(torch.tensor([n_mel]))
    mask = (torch.arange(1500)[None] < length[:, None]).long()
    mask = create_bidirectional_mask(
        config=inner.audio_tower.config, inputs_embeds=torch.zeros(1, 1500, 1), attention_mask=mask
    )
    encoded = inner.audio_tower(inputs, attention_mask=mask).last_hidden_state
    return inner.multi_modal_projector(encoded)[0, : int(frames)]


@torch.no_grad()
def reference_logits(family: str, model: Any, features: Tensor, ids: list[int], audio_token_id: int, n_prompt: int):
    """Logits (T, V) of one sequence, its audio placeholders among the first `n_prompt` tokens."""
    tokens = torch.tensor([ids])
    if family == "qwen2_5_omni":
        return model(
            input_ids=tokens,
            input_features=features[None],
            feature_attention_mask=torch.ones(1, features.shape[1], dtype=torch.long),
            attention_mask=torch.ones_like(tokens),
            position_ids=torch.arange(len(ids)).expand(3, 1, -1),
            use_cache=False,
        ).logits[0]
    # Its forward takes interleaved placeholders for unexpanded ones, so it gets merged embeddings.
    frames = qwen2_audio_frames(model, features, features.shape[-1] - 2)
    embeds = model.get_input_embeddings()(tokens)
    places = [i for i, token in enumerate(ids[:n_prompt]) if token == audio_token_id]
    embeds[0, places] = frames
    mask = torch.ones_like(tokens)
    return model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits[0]


@torch.no_grad()
def greedy_answer(processor: Any, model: Any, sample: Any, max_tokens: int = 20) -> str:
    """transformers' own greedy answer to a sample, its prompt laid out as the learner does it."""
    (frames,) = processor.family.encode(processor.family.audio_encoder(model), [processor.features(sample.audio)])
    ids = torch.tensor([processor.expanded_prompt(sample.question, len(frames))])
    embeds = model.get_input_embeddings()(ids)
    embeds = embeds.masked_scatter((ids == processor.audio_token_id)[..., None], frames)
    out = model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_tokens,
        suppress_tokens=list(processor.layout.banned_token_ids),
        eos_token_id=processor.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    return processor.answer_text(out[0].tolist())


@torch.no_grad()
def shortfall(processor: Any, model: Any, sample: Any, text: str, max_tokens: int = 20) -> float:
    """How far an answer is from transformers' greedy one: 0 where each token is the best behind those before it.

    Two tokens may be as likely as each other to the last digits, and then rounding decides between two greedy answers.

    Returns:
        the most by which a token's log-probability is below the best one's.
    """
    (frames,) = processor.family.encode(processor.family.audio_encoder(model), [processor.features(sample.audio)])
    prompt = processor.expanded_prompt(sample.question, len(frames))
    answer = processor.answer_ids(text)[:max_tokens]
    ids = torch.tensor([prompt + answer])
    embeds = model.get_input_embeddings()(ids)
    embeds = embeds.masked_scatter((ids == processor.audio_token_id)[..., None], frames)
    logits = model(inputs_embeds=embeds).logits[0, len(prompt) - 1 : -1]
    logits[:, list(processor.layout.banned_token_ids)] = -torch.inf
    logprobs = logits.log_softmax(-1)
    return float((logprobs.max(-1).values - logprobs.gather(-1, torch.tensor(answer)[:, None])[:, 0]).max())
