"""The contract that every reward keeps, as checks that any reward can be run through (`timepro check-reward`).

A reward gets groups of many kinds: answers right, near, wrong, empty, unreadable, long and cut off, all equal, one
alone, against references with several events, one and none. What it breaks is reported with the case that shows it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from rewards.built import BuiltReward
from rewards.group import Completion, Group
from rewards.places import place_of
from timepro.answers import parse_answer
from timepro.events import Event
from timepro.tables import print_lines, print_table
from timepro.tasks import available_tasks

CHECKS = (
    ("runs", "every group is scored without an exception"),
    ("shape", "one number a completion"),
    ("finite", "no NaN, no infinity"),
    ("deterministic", "the same group gets the same values again"),
    ("order independent", "other order of the completions, same values"),
    ("leaves the group alone", "completions and reference are as before"),
    ("time", "seconds for one group"),
)
_TOLERANCE = 1e-9  # sums in another order may differ in the last digits
_PERMUTATIONS = 3
_LONG = 400  # events of the long answer

REFERENCES: dict[str, tuple[Event, ...]] = {
    "two events": (Event(0.4, 1.2, "dog"), Event(2.0, 4.0, "rain falls on a roof")),
    "one event": (Event(0.4, 1.2, "dog"),),
    "no event": (),
}
ANSWERS: dict[str, tuple[str, ...]] = {
    "mixed": (
        "dog 0.40-1.20; rain falls on a roof 2.00-4.00", "dog 0.50-1.30", "dog from 3 to 9 s", "none", "nonsense", "",
        "dog 0.70-1.20; cat 1.00-2.00; rain falls on a roof 2.00-4.10",
    ),
    "all right": ("dog 0.40-1.20; rain falls on a roof 2.00-4.00",) * 4,
    "all unusable": ("nonsense", "", "hello", "0.4"),
    "all empty": ("none",) * 4,
    "one alone": ("dog 0.50-1.30",),
    "long": ("dog 0.40-1.20", "; ".join(f"dog {i / 10:.2f}-{i / 10 + 0.3:.2f}" for i in range(_LONG)), "dog 0.4-"),
}  # fmt: skip


@dataclass
class CheckOutcome:
    """One check's outcome. cases: how many groups it looked at; problem: the first thing wrong, empty for nothing."""

    name: str
    meaning: str
    cases: int = 0
    broken: int = 0
    problem: str = ""


@dataclass
class ContractReport:
    """The outcome of every check, and seconds of each group that was scored."""

    outcomes: dict[str, CheckOutcome] = field(
        default_factory=lambda: {name: CheckOutcome(name, meaning) for name, meaning in CHECKS}
    )
    seconds: list[float] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the contract is kept."""
        return not any(outcome.broken for outcome in self.outcomes.values())

    def note(self, name: str, problem: str) -> bool:
        """Count a case; returns whether it was all right."""
        outcome = self.outcomes[name]
        outcome.cases += 1
        if problem:
            outcome.broken += 1
            outcome.problem = outcome.problem or problem
        return not problem


def cases(tasks: Sequence[str] | None = None) -> Iterator[tuple[str, Callable[[], Group]]]:
    """Name and maker of every group; a maker gives a new, equal group with every call.

    Args:
        tasks: short names; None for all that are available.
    """
    for task in available_tasks() if tasks is None else tasks:
        for reference, events in REFERENCES.items():
            for answers, texts in ANSWERS.items():
                name = f"{answers} answers, {reference}, task {task}"
                yield name, partial(group_of, texts, events, task, name)


def check_reward(
    reward: BuiltReward, tasks: Sequence[str] | None = None, max_seconds: float = math.inf
) -> ContractReport:
    """Run a reward through the contract.

    Args:
        reward: as built; a slow one runs in its worker, with its time limit.
        tasks: short names of those it is meant for; None for all that are available.
        max_seconds: longest time for one group; the first group, which may load things, is not counted.
    """
    report = ContractReport()
    known: list[tuple[str, Callable[[], Group], np.ndarray]] = []
    for name, make in cases(tasks):
        group = make()
        if not known:
            _call(reward, make())
        begun = time.perf_counter()
        values = _checked(report, name, reward, group)
        seconds = time.perf_counter() - begun
        report.note("leaves the group alone", "" if group == make() else f"changed: {name}")
        if values is None:
            continue
        report.seconds.append(seconds)
        slow = f"{seconds:.3f} s: {name}; declare it slow, register(..., slow=True)" if seconds > max_seconds else ""
        report.note("time", slow)
        known.append((name, make, values))
        _check_order(report, name, reward, make, values)
    # Last, so that something remembered from other groups shows too.
    for name, make, values in known:
        again, error = _call(reward, make())
        same = error is None and np.array_equal(np.asarray(again), values)
        report.note("deterministic", "" if same else f"{_short(values)}, then {error or _short(again)}: {name}")
    return report


def print_report(reward: BuiltReward, report: ContractReport, form: str = "text") -> None:
    """A table with one line a check, and below it what is broken."""
    table = Table(
        title=Text(f"reward {reward.spec}", style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading in ("check", "what it asks", "cases", "outcome"):
        table.add_column(heading, justify="right" if heading == "cases" else "left", no_wrap=heading != "what it asks")
    for outcome in report.outcomes.values():
        told = "kept" if outcome.cases else "not reached"
        if outcome.broken:
            told = f"broken in {outcome.broken}"
        elif outcome.name == "time" and report.seconds:
            milliseconds = 1e3 * np.array(report.seconds)
            told = f"median {np.median(milliseconds):.1f} ms, longest {milliseconds.max():.1f} ms"
        style = "bold" if outcome.broken else ""
        table.add_row(outcome.name, outcome.meaning, str(outcome.cases), Text(told, style=style))
    print_table(table, form)
    lines = [f"{outcome.name}: {outcome.problem}" for outcome in report.outcomes.values() if outcome.broken]
    print_lines([*lines, f"the contract is {'kept' if report.kept else 'broken'}"], form)


def _checked(report: ContractReport, name: str, reward: BuiltReward, group: Group) -> np.ndarray | None:
    """Values of a group where they can be compared, else None."""
    values, error = _call(reward, group)
    if not report.note("runs", f"{error}: {name}" if error else ""):
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        report.note("shape", f"returned {type(values).__name__} {_short(values)}, not numbers: {name}")
        return None
    expected = (len(group.completions),)
    if not report.note("shape", "" if array.shape == expected else f"{array.shape}, expected {expected}: {name}"):
        return None
    return array if report.note("finite", "" if np.isfinite(array).all() else f"{_short(array)}: {name}") else None


def _check_order(
    report: ContractReport, name: str, reward: BuiltReward, make: Callable[[], Group], values: np.ndarray
) -> None:
    """Other orders of the same completions; each value must move with its completion."""
    rng = np.random.default_rng(0)
    for _ in range(_PERMUTATIONS if len(values) > 1 else 0):
        order = rng.permutation(len(values))
        moved, error = _call(reward, make().only(order.tolist()))
        problem = error or ""
        if not problem and np.shape(moved) != values.shape:
            problem = f"shape {np.shape(moved)}"
        if not problem:
            wrong = np.flatnonzero(~np.isclose(moved, values[order], rtol=0, atol=_TOLERANCE))
            if len(wrong):
                at = int(wrong[0])
                text = make().completions[order[at]].text
                problem = f"{_quoted(text)} got {moved[at]:g} instead of {values[order[at]]:g}"
        told = f"not order independent: {problem} with the completions in order {order.tolist()}: {name}"
        report.note("order independent", told if problem else "")


def _call(reward: BuiltReward, group: Group) -> tuple[Any, str | None]:
    """The unchecked values and no error, or no values and what was raised."""
    try:
        return copy.copy(reward.evaluate(group)), None
    except Exception as error:
        place = place_of(error)
        return None, f"{type(error).__name__}: {error}{f' (at {place})' if place else ''}"


def group_of(texts: tuple[str, ...], reference: tuple[Event, ...], task: str, name: str) -> Group:
    """The group of some answers' texts to one reference."""
    completions = tuple(
        Completion(text, parse_answer(text), truncated=text.endswith("-"), n_tokens=len(text) // 3 + 1)
        for text in texts
    )
    return Group(reference, completions, task, 10.0, name)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "\u2026")


def _short(values: object) -> str:
    return np.array2string(np.asarray(values), threshold=8, precision=4, separator=", ")
