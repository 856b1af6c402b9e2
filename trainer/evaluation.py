"""Evaluation through the rollout workers: greedy answers for every sample, scored against exact times."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rollout.client import AnswerGroup, Prompt, RolloutPool, Sampling
from timepro.answers import parse_answer
from timepro.events import Event, ParsedAnswer
from timepro.features import Processor
from timepro.metrics.tasks import main_counts, task_metrics
from timepro.runs import path_in
from timepro.system.files import replacing
from timepro.tasks import Sample


@dataclass(frozen=True)
class Scored:
    """Answers to a list of samples and what they are worth."""

    samples: list[Sample]
    texts: list[str]
    answers: list[ParsedAnswer]
    metrics: dict[str, dict[str, Any]]  # by task

    def counts(self, task: str) -> np.ndarray:
        """(N, 3) rows of the task's main metric, for the bootstrap (`timepro.metrics.tasks.main_counts`)."""
        return main_counts(task, *_of_task(task, self.samples, self.answers))


def evaluate(
    pool: RolloutPool,
    processor: Processor,
    samples: Sequence[Sample],
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
    version: int | None = None,
) -> Scored:
    """Ask the workers for one greedy answer a sample and score all of them.

    Args:
        version: the weights to be evaluated; None for whatever the workers have.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("there is nothing to evaluate: the sample list is empty")
    sampling = Sampling(n=1, temperature=0.0, max_tokens=max_tokens, stop_token_ids=(processor.eos_token_id,))
    prompts = [Prompt(s.id, processor.prompt_ids(s.question), s.audio) for s in samples]
    groups = pool.generate(prompts, sampling, progress, version)
    return score(list(samples), [answer_text(processor, group) for group in groups])


def answer_text(processor: Processor, group: AnswerGroup, index: int = 0) -> str:
    """The text of one answer of a group."""
    return processor.answer_text(group.answers[index].token_ids)


def score(samples: list[Sample], texts: list[str]) -> Scored:
    """Parse and score answers, each task by its own metrics."""
    answers = [parse_answer(text) for text in texts]
    tasks = dict.fromkeys(sample.task for sample in samples)
    metrics = {task: task_metrics(task, *_of_task(task, samples, answers)) for task in tasks}
    return Scored(samples, texts, answers, metrics)


def _of_task(
    task: str, samples: Sequence[Sample], answers: Sequence[ParsedAnswer]
) -> tuple[list[list[Event]], list[ParsedAnswer]]:
    """References of a task's samples and the answers to them."""
    chosen = [i for i, sample in enumerate(samples) if sample.task == task]
    return [list(samples[i].reference) for i in chosen], [answers[i] for i in chosen]


def save_scored(scored: Scored, path: Path) -> None:
    """Write answers with their references as JSON lines into a run's `eval/`, atomically."""
    with replacing(path) as out:
        for sample, text, answer in zip(scored.samples, scored.texts, scored.answers, strict=True):
            line = {
                "id": sample.id,
                "task": sample.task,
                "question": sample.question,
                "audio": path_in(path.parent.parent, sample.audio),
                "duration": sample.duration,
                "reference": [asdict(e) for e in sample.reference],
                "answer": text,
                "events": [asdict(e) for e in answer.events],
                "ok": answer.ok,
                "repairs": list(answer.repairs),
            }
            out.write(json.dumps(line) + "\n")


def load_scored(path: Path, samples: list[Sample]) -> Scored:
    """Read what `save_scored` wrote, for the same samples.

    Raises:
        ValueError: the file is of other samples.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if [line["id"] for line in lines] != [s.id for s in samples]:
        raise ValueError(f"{path} holds answers to other samples than the test set; remove it and evaluate again")
    return score(samples, [line["answer"] for line in lines])
