"""What a sweep found: its arms side by side, over seeds and over clips.

An arm is what trials that differ in their seed alone have in common. Two arms are compared on the clips and seeds that
both have: per clip the counts of all seeds are added up, then clips are drawn (a paired bootstrap), so that the
interval is about other clips, for these seeds. The spread over seeds is shown beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.text import Text

from timepro.metrics.bootstrap import micro_f1, paired_bootstrap
from timepro.runs import read_counts
from timepro.sweeps import Trial, trial_name
from timepro.tables import plain_table, print_table
from timepro.tasks import find_task

SEED = "seed"
FINAL = ("grpo", "sft")  # the evaluation that stands for a run: the first that it has


@dataclass
class Arm:
    """Trials that differ in their seed alone.

    counts: by seed, stage and task: (ids, counts (N, 3)) of `Task.counts`.
    """

    name: str
    counts: dict[str, dict[str, dict[str, tuple[list[str], np.ndarray]]]] = field(default_factory=dict)

    def values(self, stage: str, task: str) -> list[float]:
        """The task's main metric, a value a seed that has the stage."""
        found = [self.counts[seed][stage][task][1] for seed in self.counts if task in self.counts[seed].get(stage, {})]
        return [float(micro_f1(counts.sum(axis=0))) for counts in found]

    def final(self, seed: str) -> str:
        return next(stage for stage in FINAL if stage in self.counts[seed])


def read_arms(trials: Sequence[Trial], folders: Sequence[Path]) -> list[Arm]:
    """The arms of finished trials, in the sweep's order."""
    arms: dict[str, Arm] = {}
    for trial, folder in zip(trials, folders, strict=True):
        stages = {path.stem: read_counts(path) for path in sorted((folder / "eval").glob("*.jsonl"))}
        if not any(stage in stages for stage in FINAL):
            continue
        shared = [pair for pair in trial.naming if not pair.startswith(f"{SEED}=")]  # names an arm
        seed = next((value for key, value in trial.settings if key == SEED), 0)
        name = trial_name(shared)
        arms.setdefault(name, Arm(name)).counts[str(seed)] = stages
    return list(arms.values())


def difference(first: Arm, other: Arm, task: str) -> tuple[float, tuple[float, float], int] | str:
    """How much `other` is better, with its interval and the number of shared seeds; or why that cannot be said."""
    seeds = [seed for seed in first.counts if seed in other.counts]
    pairs = [(first.counts[s][first.final(s)].get(task), other.counts[s][other.final(s)].get(task)) for s in seeds]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return "no seed in common"
    ids = both[0][0][0]
    if any(a[0] != ids or b[0] != ids for a, b in both):
        return "other test samples"
    value, interval = paired_bootstrap(np.sum([a[1] for a, _ in both], axis=0), np.sum([b[1] for _, b in both], axis=0))
    return value, interval, len(both)


def print_comparison(title: str, arms: Sequence[Arm]) -> None:
    """A table a task: each arm before and after RL, and against the first arm."""
    tasks = dict.fromkeys(task for arm in arms for seed in arm.counts.values() for s in seed.values() for task in s)
    for task in tasks:
        rows = [[Text(cell) for cell in _cells(arms[0], arm, task)] for arm in arms]
        headings = ("seeds", "SFT", "after GRPO", "over the first arm", "arm")
        metric = find_task(task).main_metric
        print_table(plain_table(f"{title}, task {task}: {metric}, mean and range over seeds", headings, rows))


def _cells(first: Arm, arm: Arm, task: str) -> Iterator[str]:
    yield str(len(arm.counts))
    for stage in ("sft", "grpo"):
        values = arm.values(stage, task)
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        yield f"{statistics.mean(values):.3f}{spread}" if values else "-"
    if arm is first:
        yield ""
    else:
        found = difference(first, arm, task)
        yield found if isinstance(found, str) else "{0:+.3f} [{1[0]:+.3f}, {1[1]:+.3f}], {2} seed(s)".format(*found)
    yield arm.name
