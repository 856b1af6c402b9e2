"""Evaluation through the rollout workers: greedy answers for every sample, scored against exact times."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rollout.client import AnswerGroup, Prompt, RolloutPool, Sampling
from timepro.events import ParsedAnswer, parse_answer
from timepro.features import Processor
from timepro.metrics.summary import clip_counts, evaluate_answers
from timepro.tasks import Sample


@dataclass
class EvaluationConfig:
    """How a model is tested (`evaluation.*`)."""

    max_tokens: int = 32
    examples: int = 6  # clips in the picture


@dataclass(frozen=True)
class Scored:
    """Answers to a list of samples and what they are worth."""

    samples: list[Sample]
    texts: list[str]
    answers: list[ParsedAnswer]
    metrics: dict[str, Any]

    def counts(self) -> np.ndarray:
        """(N, 3) true positives, reference events and estimated events a sample, for the bootstrap."""
        return clip_counts([list(s.reference) for s in self.samples], self.answers, use_label=uses_labels(self.samples))


def uses_labels(samples: Sequence[Sample]) -> bool:
    """Whether the task's answers name classes (grounding answers are times alone; captions are free text)."""
    return samples[0].task == "sed"


def evaluate(
    pool: RolloutPool,
    processor: Processor,
    samples: Sequence[Sample],
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """Ask the workers for one greedy answer a sample and score all of them.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("there is nothing to evaluate: the sample list is empty")
    sampling = Sampling(n=1, temperature=0.0, max_tokens=max_tokens, stop_token_ids=(processor.eos_token_id,))
    prompts = [Prompt(s.id, processor.prompt_ids(s.question), s.audio) for s in samples]
    groups = pool.generate(prompts, sampling, progress)
    return score(list(samples), [answer_text(processor, group) for group in groups])


def answer_text(processor: Processor, group: AnswerGroup, index: int = 0) -> str:
    """The text of one answer of a group."""
    return processor.answer_text(group.answers[index].token_ids)


def score(samples: list[Sample], texts: list[str]) -> Scored:
    """Parse and score answers."""
    answers = [parse_answer(text) for text in texts]
    references = [list(s.reference) for s in samples]
    metrics = evaluate_answers(references, answers, use_label=uses_labels(samples))
    return Scored(samples, texts, answers, metrics)


def save_scored(scored: Scored, path: Path) -> None:
    """Write answers with their references as JSON lines, atomically."""
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w") as out:
        for sample, text, answer in zip(scored.samples, scored.texts, scored.answers, strict=True):
            line = {
                "id": sample.id,
                "audio": str(sample.audio),
                "duration": sample.duration,
                "reference": [asdict(e) for e in sample.reference],
                "answer": text,
                "events": [asdict(e) for e in answer.events],
                "ok": answer.ok,
                "repairs": list(answer.repairs),
            }
            out.write(json.dumps(line) + "\n")
    os.replace(partial, path)


def load_scored(path: Path, samples: list[Sample]) -> Scored:
    """Read what `save_scored` wrote, for the same samples.

    Raises:
        ValueError: the file is of other samples.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if [line["id"] for line in lines] != [s.id for s in samples]:
        raise ValueError(f"{path} holds answers to other samples than the test set; remove it and evaluate again")
    return score(samples, [line["answer"] for line in lines])
