"""Runs side by side, over seeds and over clips: a sweep's trials, or any others.

An arm is what runs that differ in their seed alone have in common. Two arms are compared on the clips and seeds that
both have: per clip the counts of all seeds are added up, then clips are drawn (a paired bootstrap), so that the
interval is about other clips, for these seeds. The spread over seeds is shown beside it.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from timepro.metrics.bootstrap import micro_f1, paired_bootstrap
from timepro.names import first_of
from timepro.results.code import shown_machine
from timepro.runs import STAGES, Counts, read_counts, read_identity, read_settings
from timepro.sweeps import NEVER_NAMED, SEED, Trial, trial_name
from timepro.tables import plain_table, print_table
from timepro.tasks import find_task

FINAL = ("grpo", "sft")  # the evaluation that stands for a run: the first that it has
BASELINES = ("sft", "control")  # what GRPO's gain is measured against


@dataclass(frozen=True)
class Gain:
    """A difference of two evaluations of the same samples.

    Args:
        interval: 95 %, of a paired bootstrap over samples.
        seeds: how many are behind it.
        other_machine: some seed's two evaluations are of runs on unlike machines. A training carries every rounding on,
            so the same settings end elsewhere on another processor (0.04 in Eb-F1 has been seen): as much as a seed's.
    """

    value: float
    interval: tuple[float, float]
    seeds: int
    other_machine: bool = False

    def shown(self) -> str:
        """As text: the difference and its interval."""
        return f"{self.value:+.3f} [{self.interval[0]:+.3f}, {self.interval[1]:+.3f}]"


@dataclass
class Arm:
    """Runs that differ in their seed alone.

    counts: by seed, stage and task.
    machines: by seed, in a few words; a seed whose machine is not known is left out.
    """

    name: str
    counts: dict[str, dict[str, dict[str, Counts]]] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)

    def tasks(self) -> list[str]:
        """Short names of the tasks that were evaluated."""
        return list(dict.fromkeys(task for seed in self.counts.values() for stage in seed.values() for task in stage))

    def values(self, stage: str, task: str) -> list[float]:
        """The task's main metric, a value a seed that has the stage."""
        found = [self.counts[seed][stage][task][1] for seed in self.counts if task in self.counts[seed].get(stage, {})]
        return [float(micro_f1(counts.sum(axis=0))) for counts in found]

    def final(self, seed: str) -> str:
        """The stage that stands for the run of a seed."""
        return next(stage for stage in FINAL if stage in self.counts[seed])

    def gain(self, baseline: str, task: str) -> Gain | str:
        """What GRPO adds to a stage, over the seeds that have both; or why that cannot be said."""
        stages = self.counts.values()
        pairs = [(seed.get(baseline, {}).get(task), seed.get("grpo", {}).get(task)) for seed in stages]
        return _paired(pairs, "not measured")


def read_arms(trials: Sequence[Trial], folders: Sequence[Path]) -> list[Arm]:
    """The arms of a sweep's finished trials, in the sweep's order."""
    named = []
    for trial, folder in zip(trials, folders, strict=True):
        shared = [pair for pair in trial.naming if not pair.startswith(f"{SEED}=")]  # names an arm
        seed = next((value for key, value in trial.settings if key == SEED), 0)
        named.append((trial_name(shared), str(seed), folder))
    return _arms(named)


def arms_of_runs(folders: Sequence[Path]) -> list[Arm]:
    """Runs whose settings differ in the seed alone make an arm, which is called after its first run.

    Raises:
        ValueError: two runs of an arm have the same seed, or an evaluation cannot be read.
    """
    names: dict[str, str] = {}
    named: dict[tuple[str, str], Path] = {}
    for folder in folders:
        settings = read_settings(folder)
        seed = str(settings.get(SEED, 0))
        shared = json.dumps({k: v for k, v in settings.items() if k not in (SEED, *NEVER_NAMED)}, sort_keys=True)
        # sed_grpo-seed1 is one of sed_grpo
        name = names.setdefault(shared, re.sub(r"(?<=.)[-_.,]?seed=?\d+$", "", folder.resolve().name))
        if list(names.values()).count(name) > 1:
            name = names[shared] = str(folder)
        if (name, seed) in named:
            raise ValueError(f"{named[name, seed]} and {folder} have the same settings and seed; give one of them")
        named[name, seed] = folder
    return _arms([(name, seed, folder) for (name, seed), folder in named.items()])


def arm_of_run(folder: Path) -> Arm:
    """One run as an arm of one seed, whatever it has evaluated so far.

    Raises:
        ValueError: an evaluation cannot be read.
    """
    return _arm_of(folder.name, str(read_settings(folder).get(SEED, 0)), folder, _stage_counts(folder))


def _arm_of(name: str, seed: str, folder: Path, stages: dict[str, dict[str, Counts]]) -> Arm:
    machine = read_identity(folder).get("machine")
    return Arm(name, {seed: stages}, {seed: shown_machine(machine)} if machine else {})


def _stage_counts(folder: Path) -> dict[str, dict[str, Counts]]:
    return {path.stem: read_counts(path) for path in sorted((folder / "eval").glob("*.jsonl"))}


def _arms(named: Sequence[tuple[str, str, Path]]) -> list[Arm]:
    """Arms from (its name, seed, run); runs without a final evaluation are left out."""
    arms: dict[str, Arm] = {}
    for name, seed, folder in named:
        stages = _stage_counts(folder)
        if any(stage in stages for stage in FINAL):
            one = _arm_of(name, seed, folder, stages)
            arm = arms.setdefault(name, Arm(name))
            arm.counts |= one.counts
            arm.machines |= one.machines
    return list(arms.values())


def difference(first: Arm, other: Arm, task: str) -> Gain | str:
    """How much `other` is better where both end, over the seeds that both have; or why that cannot be said."""
    seeds = [seed for seed in first.counts if seed in other.counts]
    pairs = [(first.counts[s][first.final(s)].get(task), other.counts[s][other.final(s)].get(task)) for s in seeds]
    found = _paired(pairs, "no seed in common")
    unlike = any(len({arm.machines[seed] for arm in (first, other) if seed in arm.machines}) > 1 for seed in seeds)
    return found if isinstance(found, str) else replace(found, other_machine=unlike)


def _paired(pairs: Sequence[tuple[Counts | None, Counts | None]], nothing: str) -> Gain | str:
    """What the second of each pair is better by, all seeds together; or why that cannot be said."""
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return nothing
    samples = both[0][0][0]
    for found in (counts[0] for pair in both for counts in pair):
        if [name for name, _ in found] != [name for name, _ in samples]:
            return "other test samples"
        if changed := [mine[0] for mine, other in zip(samples, found, strict=True) if mine != other]:
            return f"other references of {first_of(changed)}"
    value, interval = paired_bootstrap(np.sum([a[1] for a, _ in both], axis=0), np.sum([b[1] for _, b in both], axis=0))
    return Gain(value, interval, len(both))


def compared(arms: Sequence[Arm]) -> dict[str, list[dict[str, Any]]]:
    """By task, a dictionary an arm: its values over seeds, its gains, and the difference from the first arm."""
    tasks = dict.fromkeys(task for arm in arms for task in arm.tasks())
    return {
        task: [
            {
                "arm": arm.name,
                "seeds": list(arm.counts),
                "metric": find_task(task).main_metric,
                "stages": {stage: values for stage in STAGES if (values := arm.values(stage, task))},
                "gain": {base: gain for base in BASELINES if not isinstance(gain := arm.gain(base, task), str)},
                "over_first": None if arm is arms[0] else difference(arms[0], arm, task),
            }
            for arm in arms
        ]
        for task in tasks
    }


def print_comparison(title: str, arms: Sequence[Arm], form: str = "text") -> None:
    """A table a task: each arm before and after RL, what it gained, and against the first arm."""
    for table in comparison_tables(title, arms):
        print_table(table, form)


def comparison_tables(
    title: str, arms: Sequence[Arm], more: Mapping[str, Mapping[str, str]] | None = None
) -> list[Table]:
    """The tables of `print_comparison`.

    Args:
        more: further columns by heading, each with a text by the arm's name.
    """
    tables = []
    for task, rows in compared(arms).items():
        stages = [stage for stage in STAGES if any(stage in row["stages"] for row in rows)]
        bases = [base for base in BASELINES if any(base in row["gain"] for row in rows)]
        headings = ["seeds", *(STAGES[stage] for stage in stages), *(f"gain over {STAGES[base]}" for base in bases)]
        headings += [*["over the first arm"] * (len(arms) > 1), *(more or {}), "arm"]
        metric = find_task(task).main_heading
        about = f"{title}, task {task}: {metric}, mean and range over seeds; gains with 95 % paired bootstrap"
        cells = []
        for row in rows:
            *numbers, arm = _cells(row, stages, bases, len(arms) > 1)
            cells.append([Text(cell) for cell in (*numbers, *(by[arm] for by in (more or {}).values()), arm)])
        tables.append(plain_table(about, headings, cells, prose=1 + len(more or {}) + (len(arms) > 1)))
    return tables


def _over_first(gain: Gain) -> str:
    return f"{gain.shown()}, {gain.seeds} seed(s)" + (", other machine" if gain.other_machine else "")


def _cells(row: Mapping[str, Any], stages: Sequence[str], bases: Sequence[str], several: bool) -> Iterator[str]:
    yield str(len(row["seeds"]))
    for stage in stages:
        values = row["stages"].get(stage, [])
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        yield f"{statistics.mean(values):.3f}{spread}" if values else "-"
    for base in bases:
        yield row["gain"][base].shown() if base in row["gain"] else "-"
    if several:
        found = row["over_first"]
        yield "" if found is None else found if isinstance(found, str) else _over_first(found)
    yield row["arm"]
