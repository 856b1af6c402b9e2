"""What a report shows, as plain data: systems and their numbers, curves, and every clip with all answers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timepro.metrics.bootstrap import micro_f1, paired_bootstrap
from timepro.names import first_of
from timepro.plots.lanes import collars
from timepro.report.classes import class_scores, looks_of
from timepro.report.facts import run_facts, setting_rows
from timepro.report.media import sound_and_picture
from timepro.runs import (
    CURVES,
    STAGES,
    Curve,
    Evaluated,
    read_curves,
    read_evaluation,
    read_summary,
    run_names,
    stages_of,
    validation_curves,
)
from timepro.tasks import find_task
from timepro.tasks.base import Column


@dataclass
class System:
    """One column of the comparison: a stage of a run, and its answers by sample."""

    name: str
    run: Path
    stage: str
    answers: dict[str, Evaluated]


def systems_of(runs: Sequence[Path]) -> list[System]:
    """All stages of one run, or the last stage of each of several.

    Raises:
        ValueError: a folder without an evaluation, or two runs that were tested on other samples.
    """
    found, names = [], run_names(runs)
    for run in runs:
        stages = stages_of(run)
        for stage in stages if len(runs) == 1 else stages[-1:]:
            lines = read_evaluation(run / "eval" / f"{stage}.jsonl")
            name = STAGES[stage] if len(runs) == 1 else f"{names[run]}: {STAGES[stage]}"
            found.append(System(name, run, stage, {line.id: line for line in lines}))
    first = found[0]
    for other in found[1:]:
        if other.answers.keys() != first.answers.keys():
            only = sorted(other.answers.keys() ^ first.answers.keys())[0]
            raise ValueError(f"{first.name} and {other.name} were tested on other samples ({only} is in one alone)")
        # Made test sets call their clips alike.
        if changed := [i for i, line in first.answers.items() if not _same_reference(line, other.answers[i])]:
            raise ValueError(f"{first.name} and {other.name} have other references of {first_of(changed)}")
    return found


def _same_reference(line: Evaluated, other: Evaluated) -> bool:
    return sorted(line.reference) == sorted(other.reference)


def content_of(runs: Sequence[Path], audio: int) -> dict[str, Any]:
    """Everything that the page shows, JSON-ready.

    Args:
        audio: how many clips to put in with their sound: the most changed, the worst and the best ones first.
    """
    systems = systems_of(runs)
    ids = list(systems[0].answers)
    counts = {system.name: _counts(system, ids) for system in systems}
    scores = np.array([micro_f1(counts[system.name]) for system in systems])  # (S, N)
    sounding = set(_telling(scores, audio))
    return {
        "title": " and ".join(run_names(runs).values()),
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "runs": run_facts(runs),
        "differences": setting_rows(runs),
        "systems": [
            {"name": s.name, "metrics": _metrics(s), **_against(systems[0], s, counts, ids)} for s in systems
        ],
        "metrics": _metric_columns(_tasks(systems[0])),
        "main": {task: find_task(task).main_metric for task in _tasks(systems[0])},
        "classes": class_scores([list(system.answers.values()) for system in systems]),
        "looks": looks_of(runs, [line for system in systems for line in system.answers.values()]),
        "curves": _curves(runs),
        "clips": [_clip(systems, scores, i, clip, i in sounding) for i, clip in enumerate(ids)],
    }  # fmt: skip


def _metric_columns(tasks: Sequence[str]) -> dict[str, list[str]]:
    """(heading, format, which values are better) of every metric, by key."""
    columns = [Column("n", "clips", "d", ""), Column("empty", "answers without events", ".1%", "")]
    columns += [column for task in tasks for column in find_task(task).columns]
    return {column.key: [column.heading, column.format, column.better] for column in columns}


def _tasks(system: System) -> list[str]:
    return list(dict.fromkeys(line.task for line in system.answers.values()))


def _counts(system: System, ids: Sequence[str]) -> np.ndarray:
    """(N, 3), in the order of ids, each clip by its task's main metric."""
    found = np.zeros((len(ids), 3))
    lines = [system.answers[i] for i in ids]
    for task in _tasks(system):
        at = [k for k, line in enumerate(lines) if line.task == task]
        found[at] = find_task(task).counts([lines[k].reference for k in at], [lines[k].answer for k in at])
    return found


def _telling(scores: np.ndarray, count: int) -> list[int]:
    """Clips worth listening to: in turn the most gained, the most lost, the worst and the best of the last system."""
    change, last = scores[-1] - scores[0], scores[-1]
    orders = [np.argsort(-change, kind="stable"), np.argsort(change, kind="stable")] if len(scores) > 1 else []
    orders += [np.argsort(last, kind="stable"), np.argsort(-last, kind="stable")]
    chosen: dict[int, None] = {}
    for place in range(scores.shape[1]):
        for order in orders:
            if len(chosen) < count:
                chosen[int(order[place])] = None
    return list(chosen)


def _metrics(system: System) -> dict[str, float]:
    """The summary's numbers for the stage; with several tasks, by `task/name`."""
    stored = read_summary(system.run).get("eval", {}).get(system.stage, {})
    flat = {}
    for key, value in stored.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for name, number in inner:
            if isinstance(number, (int, float)) and math.isfinite(number):
                flat[f"{key}/{name}" if name else key] = number
    return flat


def _against(first: System, system: System, counts: dict[str, np.ndarray], ids: Sequence[str]) -> dict[str, Any]:
    """By task: the difference in the main metric from the first system, with its interval."""
    if system is first:
        return {}
    gains = {}
    for task in _tasks(first):
        at = [k for k, i in enumerate(ids) if first.answers[i].task == task]
        value, (low, high) = paired_bootstrap(counts[first.name][at], counts[system.name][at])
        gains[task] = [value, low, high]
    return {"gain": gains}


def _curves(runs: Sequence[Path]) -> list[dict[str, Any]]:
    names = run_names(runs)
    titles = CURVES | {key: title for run in runs for key, title in validation_curves(run).items()}
    read = {names[run]: read_curves(run, list(titles)) for run in runs}
    panels = []
    for key, title in titles.items():
        series = [{"name": name, "points": _finite(curves[key])} for name, curves in read.items() if key in curves]
        if series and any(value for one in series for _, value in one["points"]):
            panels.append({"title": title, "series": series})
    return panels


def _finite(curve: Curve) -> Curve:
    """A refused step's gradient norm is infinite, which JSON has no number for: such points are left out."""
    return [(step, value) for step, value in curve if math.isfinite(value)]


def _clip(systems: Sequence[System], scores: np.ndarray, place: int, clip: str, sounding: bool) -> dict[str, Any]:
    line = systems[0].answers[clip]
    return {
        "id": clip, "task": line.task, "question": line.question, "duration": line.duration, "path": str(line.audio),
        **(sound_and_picture(line.audio) if sounding else {"audio": "", "picture": ""}),
        "reference": _events(line.reference),
        "collars": [[round(begin, 3), round(end, 3)] for begin, end, _ in collars(line.reference)],
        "answers": [
            {
                "score": round(float(scores[k, place]), 4), "text": system.answers[clip].text,
                "ok": system.answers[clip].answer.ok, "events": _events(system.answers[clip].answer.events),
            }
            for k, system in enumerate(systems)
        ],
    }  # fmt: skip


def _events(events: Sequence[Any]) -> list[list[Any]]:
    return [[round(e.onset, 3), round(e.offset, 3), e.label] for e in events]
