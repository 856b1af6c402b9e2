"""Kept results as tables: for the terminal, and between two marks of `experiments/README.md`."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from timepro.compare import Arm, compared, comparison_tables
from timepro.progress import clock
from timepro.results.code import code_digest, shown_machine
from timepro.results.files import Result, TaskCounts, read_results, settings_digest
from timepro.results.more_tables import condition_tables, error_tables
from timepro.runs import Counts
from timepro.system.files import write_text
from timepro.table_formats import as_markdown

BEGIN = "<!-- kept results: written by `timepro results write`, not by hand -->"
END = "<!-- end of kept results -->"
_NONE = "No result is kept yet."


def arms_of_results(results: Sequence[Result]) -> list[Arm]:
    """The arms of a sweep's kept results, in their order."""
    arms: dict[str, Arm] = {}
    for one in results:
        counts = {
            stage: {task: _as_counts(found) for task, found in tasks.items()} for stage, tasks in one.counts.items()
        }
        arm = arms.setdefault(one.arm, Arm(one.arm))
        arm.counts[one.seed] = counts
        if one.machine:
            arm.machines[one.seed] = shown_machine(one.machine)
    return list(arms.values())


def _as_counts(counts: TaskCounts) -> Counts:
    """The samples are kept as digests of all of them, which are equal where each one is."""
    return [(f"test set {counts.samples}", counts.references)], counts.rows


def tables_of(sweep: str, results: Sequence[Result], mark_changed: bool = False) -> list[Table]:
    """A sweep's tables, one a task, with the time a trial took, the code and the machines behind it; then what
    answers are worth in other conditions and where they err, as far as that is kept.

    Args:
        results: of this sweep alone.
        mark_changed: say where the code is no longer the present one.
    """
    arms = {arm: [one for one in results if one.arm == arm] for arm in dict.fromkeys(one.arm for one in results)}
    more = {
        "time a trial": {arm: _times(own) for arm, own in arms.items()},
        "code": {arm: _codes(own, mark_changed) for arm, own in arms.items()},
        "machine": {arm: "; ".join(_once(shown_machine(one.machine) for one in own)) for arm, own in arms.items()},
    }
    tables = comparison_tables(sweep, arms_of_results(results), more)
    return [*tables, *condition_tables(sweep, results), *error_tables(sweep, results)]


def code_state(result: Result) -> str:
    """Whether a result's code is the present one: "", "code has changed since" or "code not recorded"."""
    if not result.code:
        return "code not recorded"
    return "" if result.code == code_digest(result.settings) else "code has changed since"


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Kept results for a program: by sweep, its trials and the comparison by task."""
    found: dict[str, Any] = {}
    for sweep, own in by_sweep(results).items():
        trials = [
            {
                "trial": one.trial, "arm": one.arm, "seed": one.seed, "settings": settings_digest(one.settings),
                "code": one.code, "code_state": code_state(one), "commit": one.commit, "started": one.started,
                "machine": one.machine, "seconds": one.seconds, "metrics": one.metrics,
                "conditions": one.conditions, "errors": one.errors,
            }
            for one in own
        ]  # fmt: skip
        found[sweep] = {"trials": trials, "tasks": compared(arms_of_results(own))}
    return found


def by_sweep(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results in lists of their own, by sweep."""
    return {sweep: [r for r in results if r.sweep == sweep] for sweep in dict.fromkeys(r.sweep for r in results)}


def results_text(results: Sequence[Result]) -> str:
    """All kept results as Markdown; it follows from the files alone, whatever the present code is."""
    tables = [as_markdown(table) for sweep, own in by_sweep(results).items() for table in tables_of(sweep, own)]
    return "\n".join(tables or [f"{_NONE}\n"])


def with_results(page: str, text: str) -> str:
    """A page with another text between its marks.

    Raises:
        ValueError: it does not have both marks, once each and in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the lines {BEGIN!r} and {END!r} must stand in it once each, in this order")
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n\n{text}\n{END}", page, flags=re.DOTALL)


def has_marks(page: str) -> bool:
    """Whether a page says where kept results are to stand."""
    return BEGIN in page or END in page


def write_page(results: Path) -> Path | None:
    """Write the tables between the marks of the README.md beside a folder of results.

    Trials that end at the same time take turns, so that the last one's page has all of them.

    Returns:
        the page; None where there is none, or one without marks.

    Raises:
        ValueError: a page with one mark alone, or a result that cannot be read.
    """
    page = results.parent / "README.md"
    if not results.is_dir() or not page.is_file() or not has_marks(page.read_text(encoding="utf-8")):
        return None
    with _alone(results):
        before = page.read_text(encoding="utf-8")
        try:
            after = with_results(before, results_text(read_results(results)))
        except ValueError as error:
            raise ValueError(f"{page}: {error}") from None
        if after != before:
            write_text(page, after)
    return page


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _times(results: Sequence[Result]) -> str:
    totals = sorted(sum(one.seconds.values()) for one in results)
    return clock(totals[0]) if len(totals) == 1 else f"{clock(totals[0])} to {clock(totals[-1])}"


def _codes(results: Sequence[Result], mark_changed: bool) -> str:
    """Digests of the code; several in one arm are said to be, since its seeds are then not of one kind."""
    codes = _once(one.code or "not recorded" for one in results)
    text = " and ".join(codes) + (f" ({len(codes)} versions)" if len(codes) > 1 else "")
    changed = [one.seed for one in results if mark_changed and one.code and code_state(one)]
    if not changed:
        return text
    return f"{text}, changed since" + ("" if len(changed) == len(results) else f" (seed {', '.join(changed)})")


def _once(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(texts))
