"""What a finished run's folder holds, for whoever compares runs: evaluations, summary, training curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.metrics.tasks import main_counts

STAGES = ("sft", "control", "grpo")  # in the order of the training


@dataclass(frozen=True)
class Evaluated:
    """One line of an evaluation: a sample's reference and a model's answer to it."""

    id: str
    task: str
    question: str
    audio: Path
    duration: float
    reference: tuple[Event, ...]
    text: str
    answer: ParsedAnswer


def read_evaluation(path: Path) -> list[Evaluated]:
    """The lines of `eval/STAGE.jsonl`.

    Raises:
        ValueError: a line that is none, by file and line.
    """
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            raw = json.loads(line)
            found.append(
                Evaluated(
                    raw["id"], raw["task"], raw.get("question", ""), Path(raw.get("audio", "")),
                    float(raw.get("duration", 0.0)), tuple(Event(**e) for e in raw["reference"]),
                    raw.get("answer", ""), ParsedAnswer([Event(**e) for e in raw["events"]], bool(raw["ok"])),
                )
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}:{number}: not a line of an evaluation ({type(error).__name__}: {error})"
            ) from error
    return found


def read_counts(path: Path) -> dict[str, tuple[list[str], np.ndarray]]:
    """By task: sample ids, and what their answers count for the task's main metric (`main_counts`)."""
    lines = read_evaluation(path)
    found = {}
    for task in dict.fromkeys(line.task for line in lines):
        own = [line for line in lines if line.task == task]
        counts = main_counts(task, [line.reference for line in own], [line.answer for line in own])
        found[task] = ([line.id for line in own], counts)
    return found


def stages_of(run: Path) -> list[str]:
    """The stages that a run has evaluated, in the order of the training.

    Raises:
        ValueError: no run's folder, or one without an evaluation.
    """
    found = [stage for stage in STAGES if (run / "eval" / f"{stage}.jsonl").is_file()]
    if not found:
        what = "has no evaluation yet (eval/*.jsonl)" if run.is_dir() else "is no folder"
        raise ValueError(f"{run} {what}; name the folder of a finished run, for example runs/sed_grpo")
    return found


def read_summary(run: Path) -> dict[str, Any]:
    """`summary.json`, or nothing where the run has none yet."""
    path = run / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def read_curves(run: Path, keys: Sequence[str], most: int = 300) -> dict[str, list[tuple[int, float]]]:
    """Training metrics by step, of those keys that the run has; thinned to means over equal stretches."""
    path = run / "metrics.grpo.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    curves = {}
    for key in keys:
        points = [(int(row["step"]), float(row[key])) for row in rows if isinstance(row.get(key), (int, float))]
        if points:
            width = -(-len(points) // most)
            parts = [points[i : i + width] for i in range(0, len(points), width)]
            curves[key] = [(part[-1][0], float(np.mean([value for _, value in part]))) for part in parts]
    return curves


Lanes = tuple[Path, float, list[tuple[str, Sequence[Event]]]]  # a clip's audio, its seconds, and what to draw below


def clip_lanes(run: Path, sample: str) -> Lanes:
    """A test sample's reference and every stage's answer.

    Raises:
        ValueError: no such sample.
    """
    lanes: list[tuple[str, Sequence[Event]]] = []
    line = None
    for stage in stages_of(run):
        found = [one for one in read_evaluation(run / "eval" / f"{stage}.jsonl") if one.id == sample]
        if not found:
            raise ValueError(f"{run} has not evaluated a sample {sample!r} (eval/{stage}.jsonl)")
        (line,) = found
        lanes.append((stage, inside(line.answer.events, line.duration)))
    assert line is not None, "stages_of returns at least one"
    return line.audio, line.duration, [("reference", list(line.reference)), *lanes]


def group_lanes(run: Path, step: int, sample: str) -> Lanes:
    """A training sample's reference and the answers sampled for it in a step, each with its reward."""
    from timepro.answers import parse_answer
    from timepro.inspection import choose, read_step

    (group,) = choose(read_step(run, step)[1], "batch", 1, sample)
    duration = float(group.line["duration"])
    lanes: list[tuple[str, Sequence[Event]]] = [("reference", [Event(**e) for e in group.line["reference"]])]
    for answer, reward in zip(group.line["answers"], group.rewards, strict=True):
        lanes.append((f"reward {reward:.3f}", inside(parse_answer(answer["text"]).events, duration)))
    return Path(group.line["audio"]), duration, lanes


def inside(events: Sequence[Event], duration: float) -> list[Event]:
    """The events as far as they lie in the clip: an answer may claim times beyond it."""
    return [Event(e.onset, min(e.offset, duration), e.label) for e in events if e.onset < duration]
