"""A report's classes: how each system does on each of them, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timepro.metrics.event_based import match_counts
from timepro.metrics.scores import class_totals
from timepro.plots.class_styles import class_styles
from timepro.runs import Evaluated, classes_of
from timepro.tasks import find_task


def class_scores(systems: Sequence[Sequence[Evaluated]]) -> list[dict[str, Any]]:
    """Of each class its reference events, and each system's event-based F1, precision and recall.

    Only of samples of tasks whose labels are classes. The most frequent class comes first; a class that is only made up
    has no events. A score that is not defined, such as the precision of no answers, is None.
    """
    totals = []
    for lines in systems:
        own = [line for line in lines if find_task(line.task).labels_are_classes]
        found = [match_counts(line.reference, line.answer.events if line.answer.ok else []) for line in own]
        totals.append(class_totals(found))
    labels = {label for total in totals for label in total}
    rows = []
    for label in labels:
        counts = [total.get(label, (0, 0, 0)) for total in totals]
        rows.append({"label": label, "events": int(max(c[1] for c in counts)), "scores": [_scores(*c) for c in counts]})
    return sorted(rows, key=lambda row: (-row["events"], row["label"]))


def _scores(right: int, reference: int, answered: int) -> list[float | None]:
    pairs = ((2 * right, reference + answered), (right, answered), (right, reference))
    return [round(above / below, 4) if below else None for above, below in pairs]


def looks_of(runs: Sequence[Path], lines: Sequence[Evaluated]) -> dict[str, Any]:
    """Colour, hatch, ink of every label, and whether it is a class; those of the first run stay as in its pictures."""
    classes: dict[str, None] = {}
    for run in runs:
        classes |= dict.fromkeys(classes_of(run))
    labels = {event.label for line in lines for event in (*line.reference, *line.answer.events)}
    free = [line for line in lines if not find_task(line.task).labels_are_classes]
    captions = {event.label for line in free for event in (*line.reference, *line.answer.events)}
    styles = class_styles(list(classes), labels, captions)
    looks = {label: [s.colour, s.hatch, s.ink, s.known] for label, s in styles.by_label.items()}
    return {"labels": looks, "distinct": styles.distinct, "note": styles.note}
