"""From manifests to samples: the questions of one task or of several, and how several are weighted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timepro.data.clips import Clip
from timepro.data.manifest import read_manifest
from timepro.tasks.base import Sample, Times
from timepro.tasks.registry import SHIPPED, available_tasks, find_task

TIMES = ("exact", "annotated")
AUTO = "auto"


def resolved_times(clips: Sequence[Clip], task: str, times: str) -> Times:
    """The times of the supervised answers to a task.

    Args:
        times: "exact", "annotated", or "auto": annotated where all clips that serve the task have what that takes, and
            some have annotated times at all; else exact.

    Raises:
        ValueError: something else, or an unknown task.
    """
    if times != AUTO:
        if times not in TIMES:
            raise ValueError(f"sft.label_times is {times!r}; it must be {AUTO}, {' or '.join(TIMES)}")
        return times  # type: ignore[return-value]
    found = find_task(task)
    serving = [clip for clip in clips if _serves(clip, found.name)]
    if not any(_has_annotated_times(clip) for clip in serving):
        return "exact"
    for clip in serving:
        try:
            found.samples(clip, "annotated")
        except ValueError:  # said where samples are made in earnest
            return "exact"
    return "annotated"


def samples_of(clips: Sequence[Clip], task: str, times: str = "exact") -> list[Sample]:
    """Questions for a task, in the manifest's order, of the clips that serve it.

    Args:
        task: a task's name or import path.
        times: of the supervised target, as `resolved_times` takes them. The reference is always exact.

    Raises:
        ValueError: an unknown task or times, or a clip without what the task needs.
    """
    found = find_task(task)
    chosen = resolved_times(clips, task, times)
    return [sample for clip in clips if _serves(clip, found.name) for sample in found.samples(clip, chosen)]


def samples_of_tasks(clips: Sequence[Clip], tasks: Iterable[str], times: str = "exact") -> list[list[Sample]]:
    """Questions for several tasks, one list a task; with more than one, the task is part of a sample's id.

    Raises:
        ValueError: as `samples_of`, and for a task that the clips have no sample of.
    """
    found = [find_task(task) for task in tasks]
    lists = [samples_of(clips, task.name, times) for task in found]
    for task, samples in zip(found, lists, strict=True):
        if not samples:
            served = any(_serves(clip, task.name) for clip in clips)
            lacks = f"has {task.needs or 'what it needs'}" if served else "serves it"
            raise ValueError(f"the manifest has no sample for task {task.name}: none of its {len(clips)} clips {lacks}")
    if len(lists) > 1:
        lists = [[replace(s, id=f"{s.id}@{s.task}") for s in samples] for samples in lists]
    return lists


def task_weights(spec: Any) -> dict[str, float]:
    """Tasks and their shares of the training samples.

    Args:
        spec: what the key `task` of an experiment holds: a task's name or import path, or weights of several
            (`{sed: 2, ag: 1}`).

    Returns:
        weights that sum to 1, by the tasks' short names, in the order of the spec.

    Raises:
        ValueError: an unknown task, one that is named twice, or a weight that is not a number above 0.
    """
    weights = {spec: 1.0} if isinstance(spec, str) else spec
    if not isinstance(weights, Mapping) or not weights:
        known = ", ".join(available_tasks())
        raise ValueError(f"task is {spec!r}; it must be one of {known}, or weights such as {{sed: 2, ag: 1}}")
    found: dict[str, float] = {}
    for key, weight in weights.items():
        name = find_task(str(key)).name
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            raise ValueError(f"task.{key} is {weight!r}; a weight is a number above 0")
        if name in found:
            raise ValueError(f"task names {name!r} twice; give it one weight")
        found[name] = weight
    total = sum(found.values())
    return {name: weight / total for name, weight in found.items()}


def training_samples(manifest: str | Path, spec: Any, times: str) -> tuple[list[list[Sample]], list[float]]:
    """A manifest's samples, one list a task, and the tasks' shares of the training.

    Args:
        spec: as for `task_weights`.

    Raises:
        ValueError: a bad manifest, and as `task_weights` and `samples_of_tasks`.
    """
    weights = task_weights(spec)
    return samples_of_tasks(read_manifest(manifest), weights, times), list(weights.values())


def evaluation_samples(manifest: str | Path, spec: Any) -> list[Sample]:
    """The samples that a model is tested on, task by task, always with exact times.

    Args and Raises as `training_samples`.
    """
    lists, _ = training_samples(manifest, spec, "exact")
    return [sample for samples in lists for sample in samples]


def class_labels(clips: Iterable[Clip], tasks: Iterable[str]) -> set[str]:
    """The labels that are classes: those of clips that serve one of the tasks with a closed set of labels.

    Args:
        tasks: those of a run; another one's clips may have captions as their labels.
    """
    names = [task.name for task in map(find_task, tasks) if task.labels_are_classes]
    serving = (clip for clip in clips if any(_serves(clip, name) for name in names))
    return {event.label for clip in serving for event in clip.events}


def tokenizer_texts(tasks: Iterable[str] = ()) -> list[str]:
    """Everything the prompts can say, for training a small tokenizer.

    Args:
        tasks: those that will be trained, beside the ones that this package ships.
    """
    names = dict.fromkeys([*SHIPPED, *(find_task(task).name for task in tasks)])
    return [text for name in names for text in find_task(name).prompt_texts()]


def _has_annotated_times(clip: Clip) -> bool:
    return any(event.annotated_onset is not None for event in clip.events) or any(
        query.annotated_intervals is not None for query in clip.queries
    )


def _serves(clip: Clip, name: str) -> bool:
    return clip.tasks is None or name in clip.tasks
