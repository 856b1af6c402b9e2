"""Show where and how answers err: how early or late, where in the clip, in which clips, for which events.

For each stage of a run or of a kept result, or for a file of answers that `timepro evaluate --checkpoint` has kept:
onset and offset bias (answer minus reference, so that late is above 0) and mean error of events that were found, by
place in the clip, by length of the clip and of the event; the temporal bias index (arXiv 2510.12185); and how often an
answer names events where there are none.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timepro.commands.output import add_output, print_json
from timepro.hints import fail

EXAMPLES = """\
  timepro errors runs/sed_grpo                       before and after RL
  timepro errors answers.jsonl --json                a file of answers, for a program
  timepro errors experiments/results/SWEEP/TRIAL.json    a kept result, without its run
"""
_WHAT = "a run's folder, a file of answers (.jsonl), or a kept result (.json)"
_BIAS = [
    ("onset_bias", "onset bias (s)", "+.3f", ""), ("offset_bias", "offset bias (s)", "+.3f", ""),
    ("onset_error", "onset error (s)", ".3f", "-"), ("offset_error", "offset error (s)", ".3f", "-"),
]  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("answers", type=Path, metavar="RUN|FILE", help=_WHAT)
    add_output(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the tables; returns 0, or 2 for what the user can put right."""
    try:
        reports = _reports(options.answers)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    if options.json:
        print_json({"answers": options.answers, "tasks": reports})
        return 0
    for task, stages in reports.items():
        _print_task(f"{options.answers}, task {task}", stages, options.format)
    return 0


def _reports(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Errors by task and stage. Raises ValueError for what is none of the three."""
    if path.suffix == ".json" and path.is_file():
        from timepro.results.files import read_result
        from timepro.results.more_tables import error_reports

        return error_reports(read_result(path))
    from timepro.errors import reports_of

    return reports_of(path)


def _print_task(title: str, stages: Mapping[str, Mapping[str, Any]], form: str) -> None:
    from timepro.errors import GROUPS
    from timepro.tables import print_lines, print_table, results_table

    rows = [(stage, {**vars(report["all"]), **report}) for stage, report in stages.items()]
    columns: list[Any] = [
        ("reference_events", "events", "d", ""), ("found", "found", ".1%", ""), *_BIAS,
        ("temporal_bias_index", "TBI (s)", "+.3f", ""),
    ]  # fmt: skip
    kept = [key for key in ("unparsable", "mended") if key in rows[0][1]]  # not in results of older versions
    columns += [(key, key, ".1%", "-") for key in kept]
    absent = next(iter(stages.values()))["absent_questions"]
    if absent:
        columns.append(("absent_event_rate", "absent-event rate", ".1%", "-"))
    print_table(results_table(title, rows, columns), form)
    for group, (heading, _) in GROUPS.items():
        by_stage = {stage: report[f"by_{group}"] for stage, report in stages.items()}
        names = sorted({name for found in by_stage.values() for name in found}, key=lambda name: float(name.split()[0]))
        several = [
            (f"{name}, {stage}", vars(found[name]))
            for name in names
            for stage, found in by_stage.items()
            if name in found
        ]
        if len(names) > 1:
            print_table(results_table(f"By {heading}", several, [("n", "events", "d", ""), *_BIAS]), form)
    lines = [
        "bias and error: answer minus reference, of events that an answer has with the right label and any overlap",
        "TBI: mean of onset minus the reference's onset, events paired by label and nearest onset, overlapping or not",
    ]
    if kept:
        lines.append("mended: answers that are not as the format says; what could not be read in them is left out")
    if absent:
        lines.append(
            f"absent-event rate: of the {absent} questions about what is not there, those answered with events"
        )
    print_lines(lines, form)
