"""The three tasks: what is asked of a clip and which answer is right.

- `sed`, sound event detection: every event of a closed set of classes.
- `ag`, audio grounding: all intervals of one described sound.
- `dac`, dense audio captioning: a sentence for every event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timepro.data.manifest import TASKS, Clip
from timepro.events import Event

AUDIO_TAG = "<|audio_bos|><|AUDIO|><|audio_eos|>"  # both families' spelling of one clip

_QUESTIONS = {
    "sed": "Detect the sound events with their start and end times.",
    "ag": "When does this sound occur: {query}?",
    "dac": "Describe every sound event with its start and end times.",
}


@dataclass(frozen=True)
class Sample:
    """One question about one clip, with the right answer.

    `reference` are the exact times, `target` what a supervised answer is trained on: the same, or an annotator's
    lagged version of them.
    """

    id: str
    task: str
    audio: Path
    duration: float
    question: str
    reference: tuple[Event, ...]
    target: tuple[Event, ...]


def question(task: str, query: str = "") -> str:
    """What is asked for a task; `ag` asks for a query."""
    return _QUESTIONS[task].format(query=query)


def samples_of(clips: Sequence[Clip], task: str, times: str = "exact") -> list[Sample]:
    """Questions for a task, in the manifest's order, of the clips that serve it.

    Args:
        task: one of `TASKS`; `ag` gives one sample a query, the others one a clip.
        times: "exact" or "annotated", the times of the supervised target. The reference is always exact.

    Raises:
        ValueError: an unknown task or times, or a clip without what the task needs.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it must be one of {', '.join(TASKS)}")
    if times not in ("exact", "annotated"):
        raise ValueError(f"label times are {times!r}; they must be 'exact' or 'annotated'")
    samples: list[Sample] = []
    for clip in clips:
        if clip.tasks is not None and task not in clip.tasks:
            continue
        if task == "ag":
            samples += _grounding_samples(clip, times)
            continue
        if task == "dac":
            reference, target = _captioned(clip, "exact"), _captioned(clip, times)
        else:
            reference, target = clip.labelled("exact"), clip.labelled(times)
        samples.append(
            Sample(clip.id, task, clip.audio, clip.duration, question(task), tuple(reference), tuple(target))
        )
    return samples


def task_weights(spec: Any) -> dict[str, float]:
    """Tasks and their shares of the training samples.

    Args:
        spec: what the key `task` of an experiment holds: a task's name, or weights by name (`{sed: 2, ag: 1}`).

    Returns:
        weights that sum to 1, in the order of the spec.

    Raises:
        ValueError: an unknown task, or a weight that is not a number above 0.
    """
    weights = {spec: 1.0} if isinstance(spec, str) else spec
    known = ", ".join(TASKS)
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(f"task is {spec!r}; it must be one of {known}, or weights such as {{sed: 2, ag: 1}}")
    for task, weight in weights.items():
        if task not in TASKS:
            raise ValueError(f"task is {task!r}; it must be one of {known}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            raise ValueError(f"task.{task} is {weight!r}; a weight is a number above 0")
    total = sum(weights.values())
    return {task: weight / total for task, weight in weights.items()}


def samples_of_tasks(clips: Sequence[Clip], tasks: Sequence[str], times: str = "exact") -> list[list[Sample]]:
    """Questions for several tasks, one list a task; with more than one, the task is part of a sample's id.

    Raises:
        ValueError: as `samples_of`, and for a task that the clips have no sample of.
    """
    lists = [samples_of(clips, task, times) for task in tasks]
    for task, samples in zip(tasks, lists, strict=True):
        if not samples:
            lacks = "has a query" if any(clip.tasks is None or task in clip.tasks for clip in clips) else "serves it"
            raise ValueError(f"the manifest has no sample for task {task}: none of its {len(clips)} clips {lacks}")
    if len(tasks) > 1:
        lists = [[replace(s, id=f"{s.id}@{s.task}") for s in samples] for samples in lists]
    return lists


def _grounding_samples(clip: Clip, times: str) -> list[Sample]:
    samples = []
    for number, query in enumerate(clip.queries):
        annotated = query.annotated_intervals
        if times == "annotated" and annotated is None:
            raise ValueError(f"clip {clip.id}: query {query.text!r} has no annotated_intervals; set label_times=exact")
        reference = tuple(Event(a, b, "") for a, b in query.intervals)
        target = reference if times == "exact" else tuple(Event(a, b, "") for a, b in annotated or ())
        asked = question("ag", query.text)
        samples.append(Sample(f"{clip.id}#{number}", "ag", clip.audio, clip.duration, asked, reference, target))
    return samples


def _captioned(clip: Clip, times: str) -> list[Event]:
    """The clip's events with captions as labels, in the order of their times."""
    missing = [e.label for e in clip.events if not e.caption]
    if missing:
        raise ValueError(f"clip {clip.id}: events {missing} have no caption, which task dac needs")
    # One event at a time: `labelled` sorts, and the order of annotated times need not be that of the exact ones.
    return sorted(
        Event(timed.onset, timed.offset, str(event.caption))
        for event in clip.events
        for timed in replace(clip, events=(event,)).labelled(times)
    )


def messages(question: str) -> list[dict[str, str]]:
    """The chat of one sample: the clip, then the question."""
    return [{"role": "user", "content": AUDIO_TAG + question}]


def tokenizer_texts() -> list[str]:
    """Everything the prompts can say, for training a small tokenizer."""
    return [q.replace("{query}", " ") for q in _QUESTIONS.values()]
