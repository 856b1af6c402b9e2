"""Where and how answers err: bias and size of boundary errors by place, clip and event; events that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from timepro.analysis import Boundaries, boundary_errors
from timepro.runs import Evaluated
from timepro.tasks import find_task

# Edges of the groups that errors are shown for: where in the clip, how long the clip, how long the event (s).
GROUPS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "position": ("place in the clip", (0.0, 0.25, 0.5, 0.75, 1.0)),
    "clip": ("length of the clip (s)", (0.0, 5.0, 10.0, 20.0, 30.0, 60.0)),
    "duration": ("length of the event (s)", (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)),
}


@dataclass(frozen=True)
class Bias:
    """Errors of n events in seconds: signed means (late is above 0), and means of their sizes."""

    n: int
    onset_bias: float
    offset_bias: float
    onset_error: float
    offset_error: float


def bias_of(boundaries: Boundaries, chosen: np.ndarray | None = None) -> Bias:
    """The errors of matched events, or of those that are chosen; NaN where there are none."""
    onset, offset = boundaries.onset, boundaries.offset
    if chosen is not None:
        onset, offset = onset[chosen], offset[chosen]
    values = [float(np.mean(x)) if len(x) else float("nan") for x in (onset, offset, np.abs(onset), np.abs(offset))]
    return Bias(len(onset), *values)


def bias_by(boundaries: Boundaries, group: str) -> dict[str, Bias]:
    """Errors by one of `GROUPS`; groups without events are left out, and what lies beyond the last edge is one more."""
    values, edges = getattr(boundaries, group), GROUPS[group][1]
    place = np.searchsorted(edges, values, side="right") - 1
    if group == "position":
        place[values == edges[-1]] -= 1  # the end of a clip is a place in its last part
    found = {}
    for number, low in enumerate(edges):
        inside = place == number
        if inside.any():
            name = f"{low:g} and more" if number == len(edges) - 1 else f"{low:g} to {edges[number + 1]:g}"
            found[name] = bias_of(boundaries, inside)
    return found


def temporal_bias_index(lines: Sequence[Evaluated]) -> tuple[float, int]:
    """TBI = 1/N sum (predicted onset - true onset), in seconds: below 0 the answers are early, above 0 late.

    The definition is that of Yao et al., "Not in Sync: Unveiling Temporal Bias in Audio Chat Models",
    arXiv 2510.12185, who ask for one event at a time. Where an answer names several, they are paired one to one with
    those of the reference, of the same label where labels are classes, so that onsets differ least in all; that is this
    project's reading. Unlike `boundary_errors` a pair need not overlap, so that answers far off count, too.

    Returns:
        the index and N; NaN and 0 where no answer names an event that there is.
    """
    errors = [error for line in lines for error in _onset_errors(line)]
    return (float(np.mean(errors)), len(errors)) if errors else (float("nan"), 0)


def _onset_errors(line: Evaluated) -> list[float]:
    answer = line.answer.events if line.answer.ok else []
    same = find_task(line.task).labels_are_classes
    errors = []
    for label in dict.fromkeys(event.label for event in line.reference) if same else [None]:
        true = np.array([e.onset for e in line.reference if label is None or e.label == label])
        found = np.array([e.onset for e in answer if label is None or e.label == label])
        difference = found[None, :] - true[:, None]
        rows, columns = linear_sum_assignment(np.abs(difference))
        errors += difference[rows, columns].tolist()
    return errors


def absent_event_rate(lines: Sequence[Evaluated]) -> tuple[float, int]:
    """Of the questions about what is not in the clip, the share that is answered with events.

    Those are the samples whose right answer is that there are none: a query of an absent sound, a clip without events.
    An unparsable answer names no event.

    Returns:
        the share and the number of such questions; NaN and 0 where there are none.
    """
    absent = [line for line in lines if not line.reference]
    if not absent:
        return float("nan"), 0
    return sum(line.answer.ok and bool(line.answer.events) for line in absent) / len(absent), len(absent)


def error_report(lines: Sequence[Evaluated]) -> dict[str, Any]:
    """All of this module for the answers to one task's questions."""
    boundaries = boundary_errors(lines)
    index, n_index = temporal_bias_index(lines)
    rate, n_absent = absent_event_rate(lines)
    n_reference = sum(len(line.reference) for line in lines)
    return {
        "n": len(lines),
        "reference_events": n_reference,
        "found": len(boundaries.onset) / n_reference if n_reference else float("nan"),
        "all": bias_of(boundaries),
        "temporal_bias_index": index,
        "temporal_bias_events": n_index,
        "absent_event_rate": rate,
        "absent_questions": n_absent,
        "unparsable": sum(not line.answer.ok for line in lines) / len(lines),
        "mended": sum(line.answer.mended for line in lines) / len(lines),
        **{f"by_{group}": bias_by(boundaries, group) for group in GROUPS},
    }


def plain_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report as `error_report` gives it, ready for JSON: numbers of six digits after the point, no objects."""
    return {key: _plain(value) for key, value in report.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Bias):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def reports_of(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By task and stage: the errors of a run's evaluations, or of one file of answers.

    Args:
        path: a run's folder, or a file as `timepro evaluate --checkpoint` keeps it.

    Raises:
        ValueError: neither, or a line that cannot be read.
    """
    from timepro.names import require_run
    from timepro.runs import STAGES, read_evaluation, stages_of

    if path.is_file():
        files = {path.stem: path}
    else:
        require_run(path)
        files = {STAGES[stage]: path / "eval" / f"{stage}.jsonl" for stage in stages_of(path)}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for stage, file in files.items():
        lines = read_evaluation(file)
        for task in dict.fromkeys(line.task for line in lines):
            found.setdefault(task, {})[stage] = error_report([line for line in lines if line.task == task])
    return found
