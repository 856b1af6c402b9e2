"""A manifest's samples against a model: what would end a run after hours is named before its first second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from timepro.answers.write import REWORD
from timepro.checks.limits import ModelLimits
from timepro.data.clips import Clip
from timepro.data.manifest import iter_manifest, numbered_clips
from timepro.data.spelling import side_notes
from timepro.tasks.base import Sample, Times
from timepro.tasks.registry import find_task
from timepro.tasks.samples import AUTO, class_labels, resolved_times, samples_of

SHOWN = 20
"""Problems that a message lists; it says how many more there are."""
_LOST = "would not be read back from an answer as it is"


@dataclass(frozen=True)
class SampleProblem:
    """What is wrong with one clip of a manifest."""

    manifest: str
    line: int
    clip: str
    message: str

    def __str__(self) -> str:
        return f"{self.manifest}:{self.line}: clip {self.clip!r}: {self.message}"


@dataclass(frozen=True)
class Purpose:
    """What a manifest's samples are for.

    Args:
        key: of the configuration, which names the manifest: `data.sft`.
        tasks: those that are trained or scored on it.
        times: label times of the supervised answers: "exact", "annotated" or "auto".
        max_tokens: of a generated answer; 0 where none is generated.
        row_tokens: what prompt and answer may take in a learner's micro-batch; 0: not looked at.
    """

    key: str
    tasks: Sequence[str]
    times: str = "exact"
    max_tokens: int = 0
    row_tokens: int = 0


def check_samples(
    manifest: Path, purpose: Purpose, limits: ModelLimits, max_model_len: int = 0
) -> Iterator[SampleProblem]:
    """Everything about a manifest's clips that training or scoring on them would stumble over.

    Looked for are: clips that the audio encoder or the timestamps cannot take, answers that cannot be written as text,
    prompts that leave no room for an answer, and what a task needs and a clip lacks.

    Args:
        max_model_len: tokens of prompt and answer that a rollout worker takes; 0: not looked at.

    Raises:
        ValueError: the manifest cannot be read, a task has no sample in it, or annotated label times are asked for
            that it does not have.
    """
    clips = list(numbered_clips(manifest))
    times = _times(manifest, [clip for _, clip in clips], purpose)
    seen = dict.fromkeys(purpose.tasks, 0)
    for line, clip in clips:
        found, wrong = _samples(clip, purpose.tasks, times)
        for sample in found:
            seen[sample.task] += 1
        if found:
            wrong += _wrong(clip, found, purpose, limits, max_model_len)
        for message in dict.fromkeys(wrong):
            yield SampleProblem(str(manifest), line, clip.id, message)
    for task, count in seen.items():
        if not count:
            served = any(clip.tasks is None or task in clip.tasks for _, clip in clips)
            lacks = f"has {find_task(task).needs or 'what it needs'}" if served else "serves it"
            raise ValueError(
                f"{purpose.key} ({manifest}) has no sample for task {task}: none of its {len(clips)} clips {lacks}"
            )


def label_notes(train: Path, test: Path, tasks: Sequence[str]) -> list[str]:
    """What somebody should know of the labels of two manifests: those that differ in spelling alone."""
    if not any(find_task(task).labels_are_classes for task in tasks):
        return []
    one, other = (class_labels(iter_manifest(path, check_audio=False), tasks) for path in (train, test))
    return side_notes(one, other, (str(train), str(test)))


def label_times(manifest: Path | None, tasks: Sequence[str], times: str) -> str:
    """Which times supervised answers have, for people to read: "annotated", or "exact and annotated" by task.

    Args:
        manifest: None for soundscapes that are yet to be made; they have annotated times.
    """
    if manifest is None:
        return "annotated" if times == AUTO else times
    clips = list(iter_manifest(manifest, check_audio=False)) if times == AUTO else []
    return " and ".join(dict.fromkeys(resolved_times(clips, task, times) for task in tasks))


def problems_text(problems: Sequence[SampleProblem]) -> str:
    """All problems as one message, the first of them in full."""
    count, more = len(problems), len(problems) - SHOWN
    lines = [f"{count:,} problem{'' if count == 1 else 's'} with the samples; correct the manifests or leave those out"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    if more > 0:
        lines.append(f"  and {more:,} more")
    if any(_LOST in problem.message for problem in problems):
        lines.append(f"Labels and captions that can be read back: {REWORD[0].lower()}{REWORD[1:]}.")
    return "\n".join(lines)


def _times(manifest: Path, clips: Sequence[Clip], purpose: Purpose) -> dict[str, Times]:
    """The label times of each task. Raises ValueError, once and not clip by clip, where annotated ones are missing."""
    times = {task: resolved_times(clips, task, purpose.times) for task in purpose.tasks}
    for task, chosen in times.items():
        if chosen == "annotated" and (lacking := [clip for clip in clips if _lacks_annotated_times(clip, task)]):
            share = f"{len(lacking):,} of {len(clips):,} clips"
            raise ValueError(
                f"sft.label_times=annotated, but {share} of {purpose.key} ({manifest}), the first "
                f"{lacking[0].id!r}, have no annotated times for task {task}; set sft.label_times to auto or "
                "exact, or add annotated_onset and annotated_offset (of queries: annotated_intervals)"
            )
    return times


def _lacks_annotated_times(clip: Clip, task: str) -> bool:
    try:
        samples_of([clip], task, "exact")
    except ValueError:  # it lacks something else
        return False
    try:
        samples_of([clip], task, "annotated")
    except ValueError:
        return True
    return False


def _samples(clip: Clip, tasks: Sequence[str], times: dict[str, Times]) -> tuple[list[Sample], list[str]]:
    found: list[Sample] = []
    wrong = []
    for task in tasks:
        try:
            found += samples_of([clip], task, times[task])
        except ValueError as problem:
            wrong.append(str(problem).removeprefix(f"clip {clip.id}: "))
    return found, wrong


def _wrong(
    clip: Clip, samples: Sequence[Sample], purpose: Purpose, limits: ModelLimits, max_model_len: int
) -> list[str]:
    if problem := limits.clip_problem(clip.duration, clip.audio):
        return [problem]  # of which everything else may follow
    wrong = []
    for sample in samples:
        events = sample.reference if sample.target == sample.reference else (*sample.target, *sample.reference)
        if find_task(sample.task).labels != "text":
            wrong += [f"{event.label!r} {_LOST}" for event in events if not limits.can_write(event.label)]
            problem = limits.time_problem(max((event.offset for event in events), default=0.0))
            wrong += [problem] if problem else []
        if purpose.max_tokens:
            room = {"rollout.max_model_len": max_model_len, "grpo.batch.micro_batch_tokens": purpose.row_tokens}
            for key, tokens in room.items():
                wrong += _too_long(sample, purpose.max_tokens, limits, key, tokens) if tokens else []
    return wrong


def _too_long(sample: Sample, max_tokens: int, limits: ModelLimits, key: str, room: int) -> list[str]:
    audio = limits.audio_tokens(sample.duration)
    text = sample.before + sample.question
    if audio + limits.most_question_tokens(text) + max_tokens <= room:
        return []
    question = limits.question_tokens(text)
    total = audio + question + max_tokens
    if total <= room:
        return []
    bound = "at most " if limits.tokenizer is None else ""
    return [
        f"its prompt ({audio} tokens of audio and timestamps, {bound}{question} of text) and an answer of "
        f"{max_tokens} are {bound}{total} tokens, more than {key}={room}"
    ]
