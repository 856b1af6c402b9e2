"""What one answer to every question would be worth: what a model must beat before it can be said to have listened."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from timepro.events import Event, ParsedAnswer
from timepro.metrics.bootstrap import micro_f1
from timepro.tasks import Sample, find_task

_PARTS = 5  # of a clip: an answer is a run of fifths


def best_constant_answer(samples: Sequence[Sample], name: str) -> dict[str, Any] | None:
    """The best answer that is the same part of every clip, or nothing, for a task whose answers have no labels.

    It is chosen by the main metric on the very samples that it is scored on: none of these answers is worth more.

    Args:
        samples: of all tasks.
        name: the task's short name.

    Returns:
        its metrics, and `from` and `to`, shares of the clip (both 0: the answer without events); None for a task whose
        answers have labels.
    """
    task, own = find_task(name), [sample for sample in samples if sample.task == name]
    if task.labels != "none":
        return None
    references = [list(sample.reference) for sample in own]

    def answers(start: float, end: float) -> list[ParsedAnswer]:
        events = [[Event(start * s.duration, end * s.duration, "")] if end else [] for s in own]
        return [ParsedAnswer(found, True) for found in events]

    def worth(part: tuple[float, float]) -> float:
        return float(micro_f1(task.counts(references, answers(*part)).sum(axis=0)))

    parts = [(a / _PARTS, b / _PARTS) for a, b in combinations(range(_PARTS + 1), 2)]
    best = max([(0.0, 0.0), *parts], key=worth)
    return {**task.metrics(references, answers(*best)), "from": best[0], "to": best[1]}
