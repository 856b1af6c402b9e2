"""Kept results beside the main metric: answers in other conditions, and where answers err."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from timepro.conditions import KINDS, PLAIN
from timepro.errors import GROUPS, Bias
from timepro.results.files import Result
from timepro.runs import STAGES
from timepro.tables import plain_table
from timepro.tasks import find_task

_HEADINGS = {
    PLAIN: "as they are", "silent": "silence", "shifted": "shifted, times to move along", "swapped": "another clip",
    "text_first": "text in front", "clip_first": "a clip in front", "longer": "longer clips",
}  # fmt: skip
_FOLLOWING = (
    ("silence: answers with events", "silent", "answered", ".1%"),
    ("shifted: own answers moved", "shifted", "moved", ".3f"),
    ("shifted: own answers unmoved", "shifted", "stayed", ".3f"),
    ("a clip in front: that clip's events", "clip_first", "of_other", ".3f"),
)
_BIAS = ("onset_bias", "offset_bias", "onset_error", "offset_error")
_GROUPED = tuple(f"by_{group}" for group in GROUPS)
_ERRORS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Any]], ...] = (
    ("events found", ".1%", lambda report: report["found"]),
    *((f"{key.replace('_', ' ')} (s)", "+.3f" if "bias" in key else ".3f", lambda report, key=key: report["all"][key])
      for key in _BIAS),
    ("TBI (s)", "+.3f", lambda report: report["temporal_bias_index"]),
    ("absent-event rate", ".1%", lambda report: report["absent_event_rate"]),
    # Results of older versions lack the share of mended answers.
    ("mended", ".1%", lambda report: report.get("mended")),
    ("tokens an answer", ".1f", lambda report: report["answer_tokens"]),
)  # fmt: skip


def condition_tables(sweep: str, results: Sequence[Result]) -> list[Table]:
    """A table a task of the main metric in other conditions, for the results that were asked again."""
    tables = []
    for task in dict.fromkeys(task for one in results for found in one.conditions.values() for task in found):
        metric = find_task(task).main_metric
        rows = [
            (arm, stage, [one.conditions[stage][task] for one in own])
            for arm, stage, own in _rows(results, lambda one: one.conditions, task)
        ]
        there = {kind for _, _, reports in rows for report in reports for kind in report}
        columns = [(_HEADINGS[kind], ".3f", _getter(kind, metric)) for kind in (PLAIN, *KINDS) if kind in there]
        columns += [(heading, form, _getter(kind, key)) for heading, kind, key, form in _FOLLOWING if kind in there]
        n = max((report[PLAIN]["n"] for _, _, reports in rows for report in reports if PLAIN in report), default=0)
        title = f"{sweep}, task {task}: {find_task(task).main_heading} of {n} samples asked again, mean over seeds"
        tables.append(_table(title, columns, rows))
    return tables


def error_tables(sweep: str, results: Sequence[Result]) -> list[Table]:
    """A table a task of where answers err, for the results that have it."""
    tables = []
    for task in dict.fromkeys(task for one in results for found in one.errors.values() for task in found):
        rows = [
            (arm, stage, [one.errors[stage][task] for one in own])
            for arm, stage, own in _rows(results, lambda one: one.errors, task)
        ]
        columns = [
            column for column in _ERRORS if any(column[2](report) is not None for _, _, own in rows for report in own)
        ]
        title = f"{sweep}, task {task}: errors of answers (late is above 0), mean over seeds"
        tables.append(_table(title, columns, rows))
    return tables


def error_reports(result: Result) -> dict[str, dict[str, dict[str, Any]]]:
    """A kept result's errors by task and stage, as `timepro.errors.reports_of` gives those of a run.

    Raises:
        ValueError: a result of an older version, which has none.
    """
    if not result.errors:
        raise ValueError(f"{result.sweep}/{result.trial} keeps no errors: it was kept by an older version")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in STAGES:
        for task, report in result.errors.get(stage, {}).items():
            objects: dict[str, Any] = {"all": _bias(report["all"])}
            objects |= {key: {name: _bias(raw) for name, raw in report[key].items()} for key in _GROUPED}
            numbers = {key: float("nan") if value is None else value for key, value in report.items()}
            found.setdefault(task, {})[STAGES[stage]] = {**numbers, **objects}
    return found


def _bias(raw: Mapping[str, float | None]) -> Bias:
    return Bias(**{key: float("nan") if value is None else value for key, value in raw.items()})  # type: ignore[arg-type]


def _getter(kind: str, key: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda report: report.get(kind, {}).get(key)


def _rows(
    results: Sequence[Result], part: Callable[[Result], Mapping[str, Mapping[str, Any]]], task: str
) -> Iterator[tuple[str, str, list[Result]]]:
    """Arm, stage and the arm's results that have both, arm by arm, stages in the order of the training."""
    for arm in dict.fromkeys(one.arm for one in results):
        for stage in STAGES:
            own = [one for one in results if one.arm == arm and task in part(one).get(stage, {})]
            if own:
                yield arm, stage, own


def _table(
    title: str,
    columns: Sequence[tuple[str, str, Callable[[Mapping[str, Any]], Any]]],
    rows: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]],
) -> Table:
    cells = []
    for arm, stage, reports in rows:
        texts = [str(len(reports))]
        for _, form, value_of in columns:
            values = [value for report in reports if (value := value_of(report)) is not None]
            texts.append(format(fmean(values), form) if values else "-")
        cells.append([Text(text) for text in (*texts, STAGES[stage], arm)])
    return plain_table(title, ["seeds", *(heading for heading, _, _ in columns), "stage", "arm"], cells)
