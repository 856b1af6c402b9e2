"""Tables for W&B: a few test clips with sound, picture and score; a step's answers with what they earned."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timepro.evaluation import Scored
from timepro.events import Event, ParsedAnswer
from timepro.metrics.bootstrap import micro_f1
from timepro.plots.clips import ClipPicture, Lane, Sheet, answer_lane, draw_clips
from timepro.tasks import Sample, Task, find_task
from trainer.learner.scoring import ScoredGroup

COLUMNS = ("id", "task", "question", "audio", "picture", "reference", "answer", "metric", "score")


def clip_rows(scored: Scored, count: int, classes: Sequence[str] = ()) -> list[list[Any]]:
    """Rows of `COLUMNS` for clips spread evenly over the test set, always the same ones.

    Args:
        classes: all of the run, which give the pictures their colours.
    """
    import wandb
    from PIL import Image

    n = len(scored.samples)
    tasks = {task: find_task(task) for task in scored.metrics}
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(0, n, max(1, n // max(count, 1)))[:count]:
            sample, answer = scored.samples[index], scored.answers[index]
            task = tasks[sample.task]
            score = micro_f1(task.counts([list(sample.reference)], [answer])[0])
            picture = Path(folder) / f"{index}.png"
            clip = _picture(sample, task, answer, scored.texts[index])
            draw_clips(picture, [clip], Sheet(classes=classes))
            rows.append(
                [
                    sample.id, sample.task, sample.question, wandb.Audio(str(sample.audio), caption=sample.id),
                    wandb.Image(Image.open(picture).copy()), _lines(sample.reference), scored.texts[index],
                    task.main_metric, float(score),
                ]
            )  # fmt: skip
    return rows


def completion_rows(
    groups: Sequence[ScoredGroup], advantages: Sequence[np.ndarray]
) -> tuple[list[str], list[list[Any]]]:
    """A step's answers of one rank, each with its rewards: headings, and a row an answer."""
    parts = sorted({name for group in groups for name in group.parts})
    rows = [
        [group.sample.id, group.sample.question, _lines(group.sample.reference), text, _number(group.rewards[i])]
        + [_number(group.parts[name][i]) if name in group.parts else None for name in parts]
        + [float(values[i])]
        for group, values in zip(groups, advantages, strict=True)
        for i, text in enumerate(group.texts)
    ]
    return ["id", "question", "reference", "answer", "reward", *parts, "advantage"], rows


def _number(value: float) -> float | None:
    """None where the answer was not scored."""
    return None if np.isnan(value) else float(value)


def _picture(sample: Sample, task: Task, answer: ParsedAnswer, text: str) -> ClipPicture:
    lanes = [Lane("reference", list(sample.reference)), answer_lane("answer", answer, text, sample.duration)]
    return ClipPicture(sample.id, sample.audio, sample.duration, lanes, task.labels == "captions")


def _lines(events: tuple[Event, ...]) -> str:
    return "\n".join(f"{e.onset:.2f}-{e.offset:.2f} {e.label}".strip() for e in events) or "none"
