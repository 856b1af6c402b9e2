"""Where the model looks when it says a time: attention from an answer's times to the prompt's timestamps.

A time is said over one token (`<1.24>`), two (`<1` and `.24>`) or several (`1.24` in digits); what is shown for it is
the attention of the positions that predict those tokens, averaged over them and over heads, in one layer or averaged
over all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from timepro.astp import timestamps_in
from timepro.features import Processor
from timepro.inference.generation import generated, merged_embeds

_TIME = re.compile(r"\d+\.\d+")
NEAR = 0.2
"""Seconds around a said time within which attention counts as near it: the collar of event-based F1."""
CLOSEST = "closest"
"""Instead of a layer's number: the layer that looks closest to the times that are said."""


@dataclass(frozen=True)
class SaidTime:
    """One time of an answer, and where the model looked for it.

    Args:
        seconds: the time said.
        weights: (P,) attention to each timestamp of the prompt; what is left to 1 goes to all other tokens.
        near: the share of `weights` within `NEAR` of the time said.
    """

    seconds: float
    weights: np.ndarray
    near: float

    @property
    def on_timestamps(self) -> float:
        """The share of all attention that goes to timestamps."""
        return float(self.weights.sum())


@dataclass(frozen=True)
class TimeAttention:
    """All times of one answer.

    Args:
        question: what was asked.
        times: (P,) seconds of the prompt's timestamps.
        said: the K times of the answer, as `layer` shows them.
        layer: the layer shown; None for the mean over all.
        near_by_layer: (L,) of each layer the share of its attention to timestamps that lies within `NEAR` of the time
            being said, mean over the answer's times.
    """

    question: str
    answer: str
    times: np.ndarray
    said: tuple[SaidTime, ...]
    layer: int | None
    near_by_layer: np.ndarray

    @property
    def chance(self) -> float:
        """The share of near timestamps, mean over the times said: what attention spread evenly would have near."""
        return float(np.mean([_is_near(self.times, one.seconds).mean() for one in self.said]))


@torch.no_grad()
def time_attention(
    folder: Path,
    clip: Path,
    question: str,
    answer: str | None = None,
    layer: int | str | None = None,
    max_tokens: int = 128,
) -> TimeAttention:
    """Attention from an answer's times to the timestamps of its prompt.

    Args:
        folder: a checkpoint folder, with ASTP on.
        answer: as the model would write it; None lets the model answer (greedily).
        layer: one layer, counted from 0 or, below 0, from the end; `CLOSEST` for the one that looks closest to the
            times it says; None for the mean over all.

    Raises:
        ValueError: a checkpoint without timestamps in its prompts, no such layer, or an answer without a time.
    """
    processor = Processor(folder)
    if not processor.layout.enabled:
        raise ValueError(f"{folder} has ASTP off: its prompts hold no timestamps to attend to")
    model = processor.family.load(folder, torch.float32)
    frames = processor.family.encode(processor.family.audio_encoder(model), [processor.features(clip)])[0]
    prompt = processor.expanded_prompt(question, len(frames))
    ids = processor.answer_ids(answer) if answer is not None else _greedy(processor, model, prompt, frames, max_tokens)
    text_model = processor.family.text_model(model)
    layers: Any = text_model.layers
    number = len(layers)
    if isinstance(layer, int) and not -number <= layer < number:
        raise ValueError(f"there is no layer {layer}; the decoder has {number}, 0 to {number - 1}")
    said = list(times_said(processor, ids))
    if not said:
        raise ValueError(f"the answer {processor.answer_text(ids)!r} says no time")
    stamps = timestamps_in(prompt, processor.layout)
    times, places = np.array([seconds for seconds, _ in stamps]), torch.tensor([tokens for _, tokens in stamps])
    rows = [[len(prompt) - 1 + k for k in tokens] for _, tokens in said]
    embeds = merged_embeds(processor, model, prompt + ids[:-1], frames)
    weights = _attention(text_model, embeds, rows)[:, :, places].double().sum(-1).numpy()  # over a time's tokens
    near = np.array([[_near(times, w, s) for (s, _), w in zip(said, one, strict=True)] for one in weights]).mean(axis=1)
    shown = int(near.argmax()) if layer == CLOSEST else None if layer is None else int(layer) % number
    chosen = weights.mean(axis=0) if shown is None else weights[shown]
    found = tuple(SaidTime(s, w, _near(times, w, s)) for (s, _), w in zip(said, chosen, strict=True))
    return TimeAttention(question, processor.answer_text(ids), times, found, shown, near)


def times_said(processor: Processor, answer_ids: Sequence[int]) -> Iterator[tuple[float, list[int]]]:
    """Each time of an answer, in seconds, with the indices of the tokens that spell it."""
    ids = list(answer_ids)
    ends = [len(processor.tokenizer.decode(ids[: k + 1], skip_special_tokens=False)) for k in range(len(ids))]
    for match in _TIME.finditer(processor.tokenizer.decode(ids, skip_special_tokens=False)):
        starts = [0, *ends]
        tokens = [k for k in range(len(ids)) if starts[k] < match.end() and ends[k] > match.start()]
        yield float(match.group()), tokens


def _is_near(times: np.ndarray, seconds: float) -> np.ndarray:
    return np.abs(times - seconds) <= NEAR + 1e-9


def _near(times: np.ndarray, weights: np.ndarray, seconds: float) -> float:
    return float(weights[_is_near(times, seconds)].sum() / max(weights.sum(), 1e-12))


def _greedy(processor: Processor, model: Any, prompt: list[int], frames: Tensor, max_tokens: int) -> list[int]:
    (out,) = generated(processor, model, merged_embeds(processor, model, prompt, frames), max_tokens)
    return out if out and out[-1] == processor.eos_token_id else [*out, processor.eos_token_id]


def _attention(text_model: Any, embeds: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """(L, len(rows), T): mean over heads and each row's positions. Only those positions are kept of a layer."""
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        weights = output[1][0].mean(0)  # of (1, heads, T, T)
        found.append(torch.stack([weights[row].mean(0) for row in rows]))

    with _eager(text_model), _hooks(text_model.layers, keep):
        text_model(inputs_embeds=embeds, use_cache=False)
    return torch.stack(found)


@contextmanager
def _eager(text_model: Any) -> Iterator[None]:
    """Attention that gives its weights; the fused kernels never have them."""
    before = text_model.config._attn_implementation
    text_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        text_model.set_attn_implementation(before)


@contextmanager
def _hooks(layers: Sequence[Any], hook: Any) -> Iterator[None]:
    handles = [layer.self_attn.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
