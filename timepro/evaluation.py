"""A model's answers to a list of samples, and what they are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.metrics.bootstrap import micro_f1, paired_bootstrap
from timepro.runs import path_in
from timepro.system.files import replacing
from timepro.tasks import Sample, find_task
from timepro.tasks.registry import recorded
from timepro.tasks.types import Metrics


@dataclass(frozen=True)
class Scored:
    """Answers to a list of samples and what they are worth.

    Args:
        texts: the answers as written.
        answers: what could be read from them.
        metrics: by the tasks' short names, in the order of the samples.
    """

    samples: list[Sample]
    texts: list[str]
    answers: list[ParsedAnswer]
    metrics: dict[str, Metrics]

    def counts(self, task: str) -> np.ndarray:
        """(N, 3) rows of the task's main metric, for the bootstrap (`timepro.tasks.Task.counts`)."""
        return find_task(task).counts(*self.of_task(task))

    def of_task(self, task: str) -> tuple[list[list[Event]], list[ParsedAnswer]]:
        """References of a task's samples, and the answers to them."""
        return _of_task(task, self.samples, self.answers)

    def main(self) -> dict[str, float]:
        """Each task's main metric."""
        return {task: metrics[find_task(task).main_metric] for task, metrics in self.metrics.items()}

    def mean(self) -> float:
        """The mean of the tasks' main metrics: one number to choose a checkpoint by."""
        return fmean(self.main().values())


def score(samples: list[Sample], texts: list[str]) -> Scored:
    """Parse and score answers, each task by its own metrics."""
    answers = [find_task(sample.task).read(text) for sample, text in zip(samples, texts, strict=True)]
    tasks = dict.fromkeys(sample.task for sample in samples)
    metrics = {task: find_task(task).metrics(*_of_task(task, samples, answers)) for task in tasks}
    return Scored(samples, texts, answers, metrics)


def evaluation_metrics(name: str, scored: Scored) -> dict[str, float]:
    """An evaluation's numbers under the keys that W&B shows: `eval/NAME/METRIC`, or with several tasks by task, too."""
    several = len(scored.metrics) > 1
    return {
        f"eval/{name}/{task}/{key}" if several else f"eval/{name}/{key}": float(value)
        for task, metrics in scored.metrics.items()
        for key, value in metrics.items()
    }


def gains(before: Scored, after: Scored) -> dict[str, tuple[float, tuple[float, float]]]:
    """What `after` adds to each task's main metric, with its 95 % interval of a paired bootstrap over the samples.

    Returns:
        by metric, or with several tasks by task/metric.
    """
    found = {}
    for task in after.metrics:
        metric = find_task(task).main_metric
        key = metric if len(after.metrics) == 1 else f"{task}/{metric}"
        found[key] = paired_bootstrap(before.counts(task), after.counts(task))
    return found


def gain_metrics(found: Mapping[str, tuple[float, tuple[float, float]]]) -> dict[str, float]:
    """`gains` under the keys that W&B shows: `gain/METRIC`, and the ends of its interval."""
    return {
        f"gain/{key}{end}": number
        for key, (value, (low, high)) in found.items()
        for end, number in (("", value), ("/low", low), ("/high", high))
    }


def save_scored(
    scored: Scored, path: Path, home: Path | None = None, drawn: Sequence[Sequence[str]] | None = None
) -> None:
    """Write answers with their references as JSON lines, atomically.

    `timepro.runs.read_evaluation` reads those of a run's `eval/`, `timepro evaluate` all of them.

    Args:
        home: the folder that audio paths are relative to; by default the run's, whose `eval/` the file is in.
        drawn: the texts of several sampled answers to each sample.
    """
    with replacing(path) as out:
        for index, (sample, text, answer) in enumerate(zip(scored.samples, scored.texts, scored.answers, strict=True)):
            line = {
                "id": sample.id,
                **recorded(sample.task),
                "question": sample.question,
                "audio": path_in(home or path.parent.parent, sample.audio),
                "duration": sample.duration,
                "reference": [asdict(e) for e in sample.reference],
                "answer": text,
                "events": [asdict(e) for e in answer.events],
                "ok": answer.ok,
                "repairs": list(answer.repairs),
            }
            if drawn is not None:
                line["samples"] = [[asdict(e) for e in events] for events in drawn_events(sample.task, drawn[index])]
            out.write(json.dumps(line) + "\n")


def drawn_events(task: str, texts: Sequence[str]) -> list[list[Event]]:
    """The events of several answers to one sample, read as its task reads them; an unparsable one has none."""
    return [answer.events if answer.ok else [] for answer in map(find_task(task).read, texts)]


def drawn_scores(scored: Scored, drawn: Sequence[Sequence[str]], task: str) -> dict[str, float]:
    """What n drawn answers a sample are worth by the task's main metric, which `scored` has for the greedy ones.

    Training that only makes a model surer of what it could answer before raises the mean towards the greedy answer and
    leaves the best of n where it was, or lowers it (arXiv 2504.13837 asks this of RL).

    Args:
        drawn: n texts for each sample.

    Returns:
        `n`; `mean`: the metric where one drawn answer a sample counts, mean over the n; `best`: the metric where each
        sample's best answer counts (of equal ones the one with fewer events).
    """
    judge, own = find_task(task), [i for i, sample in enumerate(scored.samples) if sample.task == task]
    references = [list(scored.samples[i].reference) for i in own]
    n = len(drawn[own[0]])
    rows = np.stack([judge.counts(references, [judge.read(drawn[i][k]) for i in own]) for k in range(n)])  # (n, N, 3)
    place = np.lexsort((-rows[..., 2], micro_f1(rows)), axis=0)[-1]
    best = np.take_along_axis(rows, place[None, :, None], axis=0)[0]
    return {"n": n, "mean": float(micro_f1(rows.sum(axis=1)).mean()), "best": float(micro_f1(best.sum(axis=0)))}


def sampled_psds(
    references: Sequence[Sequence[Event]], samples: Sequence[Sequence[Sequence[Event]]], durations: Sequence[float]
) -> dict[str, float]:
    """PSDS of n sampled answers a clip in both forms.

    Returns:
        `psds1`, `psds2`: a class's score in a frame is the share of answers in which it is active; `psds1_events`,
        `psds2_events`: an event's is the share of answers with a matching event (`timepro.metrics.psds`).

    Raises:
        ValueError: as `timepro.metrics.psds`.
    """
    from timepro.inference.confidence import by_share
    from timepro.metrics.psds import psds, psds_of_events

    found = psds(references, samples, durations)
    boxes = [by_share(answers) for answers in samples]
    return found | {f"{key}_events": value for key, value in psds_of_events(references, boxes, durations).items()}


def load_scored(path: Path, samples: list[Sample]) -> Scored:
    """Read what `save_scored` wrote, for the same samples.

    Raises:
        ValueError: the file is of other samples.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if [line["id"] for line in lines] != [s.id for s in samples]:
        raise ValueError(f"{path} holds answers to other samples than the test set; remove it and evaluate again")
    return score(samples, [line["answer"] for line in lines])


def _of_task(
    task: str, samples: Sequence[Sample], answers: Sequence[ParsedAnswer]
) -> tuple[list[list[Event]], list[ParsedAnswer]]:
    """References of a task's samples and the answers to them."""
    chosen = [i for i, sample in enumerate(samples) if sample.task == task]
    return [list(samples[i].reference) for i in chosen], [answers[i] for i in chosen]
