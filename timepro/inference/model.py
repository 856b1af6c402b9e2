"""A trained checkpoint as an object: `load(folder).answer("clip.wav")` gives what the model says, as events.

The prompt is laid out by this project's own processor and the model is the published class, so an answer is the one
that a rollout worker gives. transformers alone would leave the timestamps out.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timepro.answers import parse_answer
from timepro.card import Card, read_card, unseen
from timepro.events import Event, ParsedAnswer
from timepro.feature_cache import CachePlace
from timepro.features import Processor
from timepro.inference.confidence import Written
from timepro.inference.generation import generated, merged_embeds, written
from timepro.system.device import on_gpu
from timepro.tasks import find_task

MAX_TOKENS = 256
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Audio = str | os.PathLike[str] | np.ndarray


@dataclass(frozen=True)
class Answer:
    """What a model said about a clip.

    Args:
        text: as written.
        parsed: what could be read from it.
    """

    text: str
    parsed: ParsedAnswer

    @property
    def events(self) -> list[Event]:
        """The events, times in seconds; a grounding answer's have an empty label."""
        return self.parsed.events

    @property
    def ok(self) -> bool:
        """Whether the answer could be read: it holds events, or says that there are none."""
        return self.parsed.ok


def load(folder: str | os.PathLike[str], device: str = "auto", dtype: str = "auto") -> Model:
    """Load a checkpoint folder, such as `runs/NAME/checkpoint`, into this process.

    Args:
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU where there is one.
        dtype: "float32", "bfloat16" or "float16"; "auto": bfloat16 on a GPU, float32 on a CPU.

    Raises:
        ValueError: not a checkpoint of a supported family, an unknown dtype, or no such device.
    """
    return Model(folder, device, dtype)


class Model:
    """A checkpoint that answers questions about clips, one at a time. See `load`; `kept` as for `Processor`."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        device: str = "auto",
        dtype: str = "auto",
        kept: CachePlace | None = None,
    ) -> None:
        chosen = device if device != "auto" else "cuda" if on_gpu() and torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(chosen)
        except RuntimeError as error:
            raise ValueError(f"device is {device!r}: {str(error).splitlines()[0]}") from None
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device is {device!r}, but this PyTorch finds no GPU; use device='cpu'")
        if dtype == "auto":
            dtype = "bfloat16" if self.device.type == "cuda" else "float32"
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; it must be auto, {', '.join(DTYPES)}")
        self.folder = Path(folder)
        self.card = read_card(self.folder)
        self.processor = Processor(self.folder, kept)
        self.model: Any = self.processor.family.load(self.folder, DTYPES[dtype]).to(self.device)

    def answer(
        self,
        audio: Audio,
        question: str | None = None,
        *,
        task: str | None = None,
        query: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> Answer:
        """The model's greedy answer to a question about a clip.

        Args:
            audio: a file, or a waveform (N,) at `self.processor.extractor.sampling_rate` Hz.
            question: in your words; trained models answer best to their task's own, which `task` asks.
            task: whose question is asked, a name or an import path; by default one that the checkpoint was trained
                for and that takes a query or none, as given here; else "ag" or "sed".
            query: what the question is about, for a task that takes a query.
            max_tokens: of the answer.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a clip that the model cannot take, an unknown task, or a question and a task.
        """
        ids = self._generate(audio, self.question(question, task, query), max_tokens, 1, 0.0, 0)
        return self._read(ids[0])

    def sample(
        self,
        audio: Audio,
        n: int,
        question: str | None = None,
        *,
        task: str | None = None,
        query: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        max_tokens: int = MAX_TOKENS,
    ) -> list[Answer]:
        """`n` answers drawn at a temperature above 0, the same for the same seed. Args and Raises as `answer`."""
        if n < 1 or temperature <= 0:
            raise ValueError(f"n={n} and temperature={temperature}: sampling takes n >= 1 and a temperature above 0")
        asked = self.question(question, task, query)
        return [self._read(ids) for ids in self._generate(audio, asked, max_tokens, n, temperature, seed)]

    def question(self, question: str | None = None, task: str | None = None, query: str | None = None) -> str:
        """What is asked: the question as given, or that of a task. Args and Raises as `answer`.

        Warns of a task that the checkpoint was never trained for, where its folder says for which it was.
        """
        return question_of(self.card, question, task, query)

    def prompt_ids(self, audio: Audio, question: str) -> list[int]:
        """(T,) token ids of a prompt as the model reads it, audio placeholders and timestamps expanded."""
        features = self._features(audio)
        n_frames = self.processor.family.audio_frames(features.shape[-1] - self.processor.family.mel_margin)
        return self.processor.expanded_prompt(question, n_frames)

    def _features(self, audio: Audio) -> torch.Tensor:
        if not isinstance(audio, np.ndarray):
            return self.processor.features(Path(audio))
        if audio.ndim != 1 or audio.dtype.kind != "f":
            raise ValueError(
                f"audio is an array of shape {audio.shape} and type {audio.dtype}; give a mono waveform (N,) of floats "
                f"in [-1, 1] at {self.processor.extractor.sampling_rate} Hz, or a file"
            )
        return self.processor.features_of(audio.astype(np.float32))

    def written(self, audio: Audio, question: str, n: int, temperature: float, max_tokens: int) -> list[Written]:
        """`n` answers as token ids with log-probabilities, the same for the same clip. Args and Raises as `sample`."""
        return written(self.processor, self.model, self._embeds(audio, question), max_tokens, n, temperature)

    def _generate(
        self, audio: Audio, question: str, max_tokens: int, n: int, temperature: float, seed: int
    ) -> list[list[int]]:
        embeds = self._embeds(audio, question)
        return generated(self.processor, self.model, embeds, max_tokens, n, temperature, seed)

    @torch.no_grad()
    def _embeds(self, audio: Audio, question: str) -> torch.Tensor:
        """(1, T, H): the prompt as the model takes it."""
        family = self.processor.family
        features = self._features(audio).to(self.device, self.model.dtype)
        frames = family.encode(family.audio_encoder(self.model), [features])[0]
        prompt = self.processor.expanded_prompt(question, len(frames))
        return merged_embeds(self.processor, self.model, prompt, frames)

    def _read(self, ids: list[int]) -> Answer:
        text = self.processor.answer_text(ids)
        return Answer(text, parse_answer(text))


def question_of(
    card: Card | None,
    question: str | None = None,
    task: str | None = None,
    query: str | None = None,
    labels: Sequence[str] = (),
) -> str:
    """What is asked of a checkpoint with this card. Args, warnings and Raises as `Model.question`.

    Args:
        labels: classes that are wanted; those that it never saw are warned of.
    """
    if question is None:
        chosen = find_task(task or _default_task(card, bool(query)))
        for note in unseen(card, chosen.name, labels):
            warnings.warn(note, stacklevel=4)
        return chosen.question(query or "")
    if task is not None or query is not None:
        raise ValueError("give a question, or a task (and its query), not both: the task asks its own question")
    return question


def _default_task(card: Card | None, with_query: bool) -> str:
    """The first of its own tasks that takes a query, or takes none; "ag" or "sed" where no card tells."""
    own = card.tasks if card else ()
    fitting = [task for task in own if find_task(task).takes_query == with_query]
    return fitting[0] if fitting else "ag" if with_query else "sed"
