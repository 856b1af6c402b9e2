"""Tables of clips for W&B: sound, picture, reference, answer and score of a few test clips."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timepro.evaluation import Scored
from timepro.events import Event, ParsedAnswer
from timepro.metrics.bootstrap import micro_f1
from timepro.plots.clips import ClipPicture, Lane, Sheet, answer_lane, draw_clips
from timepro.tasks import Sample, Task, find_task

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


def _picture(sample: Sample, task: Task, answer: ParsedAnswer, text: str) -> ClipPicture:
    lanes = [Lane("reference", list(sample.reference)), answer_lane("answer", answer, text, sample.duration)]
    return ClipPicture(sample.id, sample.audio, sample.duration, lanes, task.labels == "captions")


def _lines(events: tuple[Event, ...]) -> str:
    return "\n".join(f"{e.onset:.2f}-{e.offset:.2f} {e.label}".strip() for e in events) or "none"
