"""A model's answers to windows, as events with a confidence, whoever runs the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from timepro.answers import parse_answer
from timepro.card import Card, read_card
from timepro.data.manifest import CONTROL
from timepro.data.values import is_missing
from timepro.features import Processor
from timepro.inference.confidence import Written, by_probability, by_share
from timepro.inference.detections import ConfidenceKind, Detection
from timepro.inference.model import MAX_TOKENS, Model, load, question_of

WINDOW_S = 10.0
"""Of a checkpoint that does not say what it was trained on."""
SHORTEST_S = 0.001
"""Files of events have milliseconds."""


class Backend(Protocol):
    """Runs a checkpoint: waveforms and a question in, written answers out."""

    def write(
        self, windows: Sequence[np.ndarray], question: str, n: int, temperature: float, max_tokens: int
    ) -> list[list[Written]]:
        """`n` answers to a question about each window.

        Args:
            windows: waveforms (N,) at the model's rate.
            n: answers; 1 at a temperature of 0.
            temperature: 0 is greedy. The same windows get the same answers.
        """
        ...


class InProcess:
    """A checkpoint that transformers runs in this process."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def write(
        self, windows: Sequence[np.ndarray], question: str, n: int, temperature: float, max_tokens: int
    ) -> list[list[Written]]:
        """See `Backend`."""
        return [self._model.written(window, question, n, temperature, max_tokens) for window in windows]


class ModelAnswerer:
    """A checkpoint asked one question about each window. See `timepro.inference.session.WindowAnswerer`.

    Args:
        processor: the checkpoint's, which reads what was written.
        backend: runs it.
        question: what is asked.
        label: of events that the answer gives none, as in grounding, where the question says what is meant.
        samples: answers drawn for each window; 0: the greedy one.
        window_s: what the checkpoint was trained on, in seconds.
    """

    def __init__(
        self,
        processor: Processor,
        backend: Backend,
        question: str,
        window_s: float,
        *,
        label: str = "",
        samples: int = 0,
        temperature: float = 1.0,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        if samples < 0 or temperature <= 0:
            raise ValueError(f"samples={samples}, temperature={temperature}: samples is at least 0, the other above 0")
        self.sample_rate = int(processor.extractor.sampling_rate)
        self.window_s = window_s
        self.kind: ConfidenceKind | None = "share" if samples else "probability"
        self._processor, self._backend, self._question, self._label = processor, backend, question, plain_label(label)
        self._n, self._temperature = max(1, samples), temperature if samples else 0.0
        self._max_tokens = max_tokens

    def answer(self, windows: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See `WindowAnswerer.answer`."""
        written = self._backend.write(windows, self._question, self._n, self._temperature, self._max_tokens)
        return [
            [event for told in self._events(answers) if (event := self._placed(told, len(window) / self.sample_rate))]
            for window, answers in zip(windows, written, strict=True)
        ]

    def _events(self, answers: Sequence[Written]) -> list[Detection]:
        texts = [self._processor.answer_text(answer.token_ids) for answer in answers]
        if self.kind == "share":
            return by_share([parse_answer(text).events for text in texts])
        pieces = token_texts(self._processor, answers[0].token_ids, texts[0])
        return by_probability(parse_answer(texts[0]), pieces, answers[0].logprobs[: len(pieces)])

    def _placed(self, event: Detection, seconds: float) -> Detection | None:
        """The event within its window, under its label; None where it lies behind the window's end, or has no name."""
        offset, label = min(event.offset, seconds), plain_label(event.label) or self._label
        if offset - event.onset < SHORTEST_S or not label:
            return None
        return Detection(event.onset, offset, label, event.confidence)


def plain_label(label: str) -> str:
    """A label as files of events can hold it, on one line; empty where it names nothing ("null", "n/a")."""
    plain = " ".join(CONTROL.sub(" ", label).split())
    return "" if is_missing(plain) else plain


def token_texts(processor: Processor, token_ids: Sequence[int], text: str) -> list[str]:
    """The texts of an answer's tokens, which are the answer's text one behind the other.

    Args:
        token_ids: T of them, with the turn's end or without.
        text: of the answer; a token that ends in the middle of a character has none of it.

    Returns:
        T texts, or T - 1 without the turn's end.
    """
    ids = list(token_ids[:-1] if token_ids and token_ids[-1] == processor.eos_token_id else token_ids)
    pieces, at = [], 0
    for count in range(1, len(ids) + 1):
        begun = processor.tokenizer.decode(ids[:count], skip_special_tokens=False).rstrip("\ufffd")
        end = len(text) if count == len(ids) else max(at, min(len(begun), len(text)))
        pieces.append(text[at:end])
        at = end
    return pieces


def of_checkpoint(
    folder: str | os.PathLike[str],
    *,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    query: str | None = None,
    samples: int = 0,
    window: float | None = None,
    backend: Backend | None = None,
    device: str = "auto",
) -> ModelAnswerer:
    """A checkpoint's folder as an answerer. Args as `timepro.inference.detector.Detector`.

    Raises:
        ValueError: not a checkpoint of a supported family, an unknown task, or a device that is not there.
    """
    card = read_card(os.fspath(folder))
    question = question_of(card, None, task, query, labels or ())
    if backend is None:
        model = load(folder, device)
        processor, backend = model.processor, InProcess(model)
    else:
        processor = Processor(os.fspath(folder))
    window_s, longest = window or trained_window(card, processor), _encoder_s(processor)
    if window_s > longest:
        raise ValueError(f"window {window_s:g} s: the encoder of this checkpoint takes {longest:g} s at most")
    return ModelAnswerer(processor, backend, question, window_s, label=query or "", samples=samples)


def trained_window(card: Card | None, processor: Processor) -> float:
    """Seconds of a window: the usual clip that the checkpoint was trained on, as far as its encoder takes it.

    Not the longest: at the end of what was seen in training answers are worst, and a window holds more events.
    """
    usual = card.usual_clip if card else None
    return min(usual or WINDOW_S, _encoder_s(processor))


def _encoder_s(processor: Processor) -> float:
    return float(processor.extractor.n_samples / processor.extractor.sampling_rate)
