"""What a model answers to other audio, as a table and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from timepro.tables import print_lines, print_table, results_table
from timepro.tasks import find_task

_ROWS = {
    "silent": "silence",
    "shifted": "shifted, times to move along",
    "swapped": "another clip",
    "constant": "one answer to all",
}


def print_controls(name: str, report: Mapping[str, Any], form: str = "text") -> None:
    """Print a task's controls.

    Args:
        name: the task's short name.
        report: the task's metrics, and under "controls" what `control_report` and `best_constant_answer` gave for it.
    """
    task, controls = find_task(name), report["controls"]
    columns: list[Any] = [(c.key, c.heading, c.format, "") for c in task.columns]
    columns += [("empty", "empty answers", ".1%", "")]
    rows = [("the clip as it is", report), *((_ROWS[kind], found) for kind, found in controls.items())]
    print_table(
        results_table(f"Does it listen? Task {name}, the same questions about other audio", rows, columns), form
    )
    print_lines(_lines(task.main_heading, controls), form)


def _lines(heading: str, controls: Mapping[str, Any]) -> Iterator[str]:
    if "silent" in controls:
        yield f"silence: {controls['silent']['answered']:.1%} of the answers name events that are not there"
    if "constant" in controls:
        one = controls["constant"]
        part = f"{one['from']:.0%} to {one['to']:.0%} of every clip" if one["to"] else "no events"
        yield f"one answer to all: {part}, the best of its kind for these very questions; a model that listens beats it"
    if "shifted" not in controls:
        yield "shifted: no clip has a pause that it could be cut in"
        return
    found = controls["shifted"]
    if "moved" in found:
        yield (
            f"shifted: {heading} {found['moved']:.3f} against the model's own answers moved with the audio, "
            f"{found['stayed']:.3f} against them unmoved"
        )
    if found["shift"]["n"]:
        yield (
            f"shifted: {found['shift']['n']} events found both times; the answer's move misses the audio's by "
            f"{found['shift']['median_error']:.2f} s in the median"
        )
    if found["left_out"]:
        yield f"shifted: {found['left_out']} samples are left out, whose clips have no pause to be cut in"
