"""Clips of a run as pictures: every stage's answer to a test clip, or a training step's sampled answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from timepro.answers import parse_answer
from timepro.events import Event, ParsedAnswer
from timepro.inspection import choose, read_step
from timepro.metrics.bootstrap import micro_f1
from timepro.names import near
from timepro.plots.clips import ClipPicture, Lane, Sheet, answer_lane
from timepro.plots.files import MAX_CLIPS
from timepro.runs import (
    STAGES,
    Evaluated,
    classes_of,
    path_from,
    read_evaluation,
    run_title,
    score_line,
    stages_of,
)
from timepro.tasks import Task, find_task
from timepro.tasks.registry import recorded_task


def evaluated_clips(run: Path, ids: Sequence[str]) -> tuple[list[ClipPicture], Sheet]:
    """Test samples with their reference and every stage's answer, and what holds for all of them.

    Raises:
        ValueError: a sample that was not evaluated, with near names.
    """
    check_number(ids)
    stages = stages_of(run)
    lines = {stage: {line.id: line for line in read_evaluation(run / "eval" / f"{stage}.jsonl")} for stage in stages}
    for sample in ids:
        for stage in stages:
            if sample not in lines[stage]:
                known = list(lines[stage])
                hint = near(sample, known) or f"; it has {len(known)}, for example {known[0] if known else 'none'}"
                raise ValueError(f"{run} has not evaluated a sample {sample!r} in stage {stage}{hint}")
    clips = [_evaluated_clip({stage: lines[stage][sample] for stage in stages}) for sample in ids]
    metrics = dict.fromkeys(find_task(lines[stages[0]][sample].task).main_heading for sample in ids)
    below = f"{score_line(run, stages)}; the number behind a name is the {' or '.join(metrics)} of the clip"
    return clips, Sheet(run_title(run), below, classes_of(run))


def _evaluated_clip(lines: dict[str, Evaluated]) -> ClipPicture:
    first = next(iter(lines.values()))
    task = find_task(first.task)
    lanes = [Lane("reference", list(first.reference))]
    for stage, line in lines.items():
        score = micro_f1(task.counts([line.reference], [line.answer])[0])
        said = line.answer
        if task.labels == "text":  # which has no times: shown under the whole clip
            said = ParsedAnswer([Event(0.0, line.duration, line.text or "(nothing)")], True)
        lanes.append(answer_lane(f"{STAGES[stage]} {score:.2f}", said, line.text, line.duration))
    title = _titled(first.id, task, first.question)
    return ClipPicture(title, first.audio, first.duration, lanes, task.labels in ("captions", "text"))


def sampled_clips(run: Path, step: int, ids: Sequence[str]) -> tuple[list[ClipPicture], Sheet]:
    """Training samples with their reference and the answers sampled for them in a step, each with its reward.

    Raises:
        ValueError: no such step, or a sample that was not drawn in it.
    """
    check_number(ids)
    groups = read_step(run, step)[1]
    clips = []
    for sample in ids:
        (group,) = choose(groups, "batch", 1, sample)
        line, duration = group.line, float(group.line["duration"])
        lanes = [Lane("reference", [Event(**e) for e in line["reference"]])]
        for number, answer in enumerate(line["answers"], 1):
            reward = "not scored" if answer["reward"] is None else f"reward {answer['reward']:.3f}"
            lanes.append(answer_lane(f"{number}: {reward}", parse_answer(answer["text"]), answer["text"], duration))
        task = recorded_task(line)
        title = _titled(sample, task, line["question"])
        clips.append(ClipPicture(title, path_from(run, line["audio"]), duration, lanes, task.labels == "captions"))
    below = "answers sampled in training, each with its reward"
    return clips, Sheet(f"{run_title(run)}, step {step}", below, classes_of(run))


def check_number(ids: Sequence[str]) -> None:
    """Refuse more clips than fit, and one named twice.

    Raises:
        ValueError: saying which.
    """
    if len(ids) > MAX_CLIPS:
        raise ValueError(f"{len(ids)} clips, but a picture holds at most {MAX_CLIPS}; draw several pictures")
    if twice := sorted({one for one in ids if list(ids).count(one) > 1}):
        raise ValueError(f"{', '.join(twice)} is named more than once; name each clip once")


def _titled(sample: str, task: Task, question: str) -> str:
    """The sample's id, with the question where it differs from clip to clip."""
    asks_more = task.takes_query or task.labels == "text"
    return f"{sample}: {question}" if asks_more and question else sample
