"""Encoder and decoder in one checkpoint of a supported family, as published: without timestamps yet.

What is new is the projector between them (random), the rows of special tokens that the decoder's tokenizer lacked (the
mean of all rows), and in Omni the smallest vision tower that its class accepts. Weights are written in float32, so that
nothing of either part is rounded; all of them are in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from timepro.composing.decoder import Decoder
from timepro.composing.encoder import Encoder
from timepro.embeddings import padded_rows
from timepro.families import ModelFamily
from timepro.families.parts.whisper import sinusoids
from timepro.system.files import whole_folder
from timepro.tiny.build import initialised_model, write_weights
from timepro.tiny.config import TinyModelConfig
from timepro.tiny.tokenizer import build_tokenizer, chat_template

Say = Callable[[str], None]
_ROUNDING = 0.01  # of positions in half precision, by far


def compose(
    encoder: Encoder,
    decoder: Decoder,
    family: ModelFamily,
    out: Path,
    *,
    words: Sequence[str] = (),
    texts: Sequence[str] = (),
    window: int = 0,
    seed: int = 0,
    say: Say = print,
) -> None:
    """Write a checkpoint folder that `timepro init-model` takes.

    Args:
        out: made here, complete or not at all.
        words, texts: for the tokenizer of a fresh decoder: labels that become one token each, and what else it shall
            know.
        window: audio frames that Omni's encoder attends over at a time; 0 for its own.
        seed: of everything that is random.

    Raises:
        ValueError: the folder exists, an encoder of another family, or parts that the family's class does not take.
    """
    if out.exists():
        raise ValueError(f"{out} exists already; give another folder, or remove it first")
    if encoder.family and encoder.family != family.name:
        raise ValueError(f"the encoder is one of {encoder.family}; compose it with --family {encoder.family}")
    config = _sizes(encoder, decoder, family, window, seed)
    tokenizer = _tokenizer(decoder, family, words, texts)
    matrix = next((tensor for name, tensor in decoder.tensors() if name == "embed_tokens.weight"), None)
    rows = max(padded_rows(len(tokenizer)), 0 if matrix is None else len(matrix))
    model_config = family.tiny_config(config, tokenizer, rows)
    _take_details(family.text_side_config(model_config).text_config, decoder, family)
    model = initialised_model(family, model_config, config)
    taken = _take_encoder(model, encoder, family) | _take_decoder(model, decoder, family)
    with whole_folder(out) as partial:
        family.write_tiny(partial, model_config, tokenizer, chat_template(family.tokens))
        write_weights(partial, family, model, config, tokenizer)
    _report(model, taken, say)


def _sizes(encoder: Encoder, decoder: Decoder, family: ModelFamily, window: int, seed: int) -> TinyModelConfig:
    own = TinyModelConfig()
    return TinyModelConfig(
        family=family.name,
        encoder_mel_bins=encoder.mel_bins,
        encoder_width=encoder.width,
        encoder_layers=encoder.layers,
        encoder_heads=encoder.heads,
        encoder_feed_forward=encoder.feed_forward,
        encoder_window=window or encoder.window or own.encoder_window,
        published=True,
        seed=seed,
        **decoder.sizes,
    )


def _tokenizer(decoder: Decoder, family: ModelFamily, words: Sequence[str], texts: Sequence[str]) -> Any:
    """The decoder's own with the family's special tokens, or one that is trained on the words of a fresh one."""
    if decoder.folder is None:
        return build_tokenizer(words, texts, None, family.tokens)
    from transformers import AutoTokenizer

    tokens = family.tokens
    tokenizer = AutoTokenizer.from_pretrained(
        str(decoder.folder), local_files_only=True, extra_special_tokens=dict(tokens.named), eos_token=tokens.turn_end,
        pad_token=tokens.end_of_text, chat_template=chat_template(tokens),
    )  # fmt: skip
    tokenizer.add_tokens([token for token in tokens.all() if token not in tokenizer.get_vocab()], special_tokens=True)
    return tokenizer


def _take_details(text: Any, decoder: Decoder, family: ModelFamily) -> None:
    """Put what a pretrained decoder computes with into the family's configuration of its decoder."""
    for key, value in decoder.details.items():
        if key != "rope_parameters":
            setattr(text, key, value)
            continue
        own = dict(text.rope_parameters)
        if "mrope_section" in own and value["rope_type"] != "default":
            raise ValueError(
                f"{decoder.folder}: its rotary positions are scaled ({value['rope_type']}), which {family.name} cannot "
                "do beside its own; compose another family"
            )
        text.rope_parameters = own | value


def _take_encoder(model: Any, encoder: Encoder, family: ModelFamily) -> set[str]:
    """Copy an encoder's weights; returns the live names of what has been filled."""
    live = dict(model.named_parameters())
    if encoder.family:
        names = {family.checkpoint_name(name): name for name in live}
        found = {names[name]: tensor for name, tensor in encoder.weights.items() if name in names}
        # A projector to another width cannot be kept: it stays random.
        found = {name: tensor for name, tensor in found.items() if live[name].shape == tensor.shape}
    else:
        renamed = {name: family.whisper_parameter(name) for name in encoder.weights}
        if renamed.get("embed_positions.weight", "") is None:
            _require_sinusoids(encoder.weights["embed_positions.weight"], family)
        found = {target: encoder.weights[name] for name, target in renamed.items() if target is not None}
    _fill(live, found)
    return set(found)


def _require_sinusoids(positions: torch.Tensor, family: ModelFamily) -> None:
    """Refuse position embeddings (T, width) that a class which computes them would replace by others."""
    apart = float((positions - sinusoids(*positions.shape)).abs().max())
    if apart > _ROUNDING:
        raise ValueError(
            f"the encoder's positions are not the sinusoids that {family.name} computes (up to {apart:.3f} apart); "
            "compose another family"
        )


def _take_decoder(model: Any, decoder: Decoder, family: ModelFamily) -> set[str]:
    """Copy a decoder's weights; returns the live names of what has been filled."""
    live = dict(model.named_parameters())
    matrices = {family.decoder_prefix + "embed_tokens.weight", "lm_head.weight"}
    taken = set()
    for name, tensor in decoder.tensors():
        target = name if name == "lm_head.weight" else family.decoder_prefix + name
        if name.endswith("rotary_emb.inv_freq"):  # a buffer that old exports hold; the class computes it
            continue
        if target in matrices and len(tensor) < len(live[target]):
            fresh = tensor.mean(dim=0, keepdim=True).expand(len(live[target]) - len(tensor), -1)
            tensor = torch.cat([tensor, fresh])
        _fill(live, {target: tensor})
        taken.add(target)
    if taken:
        for name in (name for name in live.keys() - taken if name.startswith(family.decoder_prefix)):
            if not name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")):
                raise ValueError(f"{decoder.folder}: holds no tensor for {name}; fetch the rest of the checkpoint")
            _fill(live, {name: torch.zeros_like(live[name])})  # Llama's have none
            taken.add(name)
    return taken


@torch.no_grad()
def _fill(live: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if name not in live or live[name].shape != tensor.shape:
            wanted = tuple(live[name].shape) if name in live else "nothing"
            raise ValueError(f"{name}: a tensor {tuple(tensor.shape)} where the family's class has {wanted}")
        live[name].copy_(tensor)


def _report(model: Any, taken: set[str], say: Say) -> None:
    """Say how much is pretrained, and what is random."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("visual")}
    pretrained = sum(size for name, size in sizes.items() if name in taken)
    fresh = {
        name.partition(".layers.")[0].removesuffix(".weight").removesuffix(".bias") for name in sizes.keys() - taken
    }
    say(f"{sum(sizes.values()) / 1e6:.1f} million parameters, {pretrained / 1e6:.1f} of them pretrained")
    say(f"random: {', '.join(sorted(fresh)) or 'nothing'}")
