"""What `timepro runs` lists: every run below a folder, how far it is, and what it has gained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from timepro.compare import BASELINES, Arm, Gain, arm_of_run
from timepro.progress import clock
from timepro.run_lock import owner_of
from timepro.runs import STAGES, last_step, read_identity, read_settings, read_summary
from timepro.tables import plain_table, print_table
from timepro.tasks import find_task

_KEPT = "cache"  # the folder of stages that several runs share
CONFIG = "config.yaml"


@dataclass(frozen=True)
class TaskResult:
    """A run's results of one task.

    Args:
        metric: the task's main metric.
        stages: its value by stage.
        gain: what GRPO added, by the stage it is measured against.
    """

    metric: str
    stages: dict[str, float]
    gain: dict[str, Gain]


@dataclass(frozen=True)
class RunState:
    """One run.

    Args:
        name: its path below the folder that was listed.
        state: finished, running or stopped.
        step, of: GRPO's steps done, and all of them; 0 of 0 where the run has no GRPO.
        seconds: of all stages; 0 before it is finished.
        tasks: by short name; empty before the first evaluation.
        problem: why the evaluations could not be read.
    """

    folder: Path
    name: str
    state: str
    seed: int
    step: int
    of: int
    started: str
    commit: str
    seconds: float
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    problem: str = ""

    @property
    def progress(self) -> str:
        """The state in words."""
        if self.state == "finished" or not self.of:
            return self.state
        return f"{self.state} at step {self.step} of {self.of}" if self.step else f"{self.state} before GRPO"


def find_runs(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Runs below some folders, or the folders themselves: (name, folder), by name.

    Raises:
        ValueError: a folder that holds no run.
    """
    found: dict[str, Path] = {}
    for top in folders:
        before = len(found)
        for folder, below, files in os.walk(top):
            if CONFIG in files:
                name = os.path.relpath(folder, top)
                found[str(top) if name == "." else name if len(folders) == 1 else folder] = Path(folder)
            # A run holds no other run, and what runs share is none.
            below[:] = [] if CONFIG in files else sorted(name for name in below if name != _KEPT)
        if len(found) == before:
            raise ValueError(f"{top} holds no run; name a run's folder, or one that holds runs")
    return sorted(found.items())


def run_state(name: str, folder: Path) -> RunState:
    """How far a run is, and what it has gained."""
    settings, summary, identity = read_settings(folder), read_summary(folder), read_identity(folder)
    grpo = settings.get("grpo") or {}
    tasks, problem = {}, ""
    try:
        arm = arm_of_run(folder)
        tasks = {task: _result(arm, task) for task in arm.tasks()}
    except ValueError as error:
        problem = str(error)
    return RunState(
        folder=folder,
        name=name,
        state="finished" if summary else "running" if owner_of(folder) else "stopped",
        seed=int(settings.get("seed", 0)),
        step=last_step(folder),
        of=int(grpo.get("max_steps", 0)) if grpo.get("enabled", True) else 0,
        started=str(identity.get("started", "")),
        commit=str(identity.get("commit", "")),
        seconds=float(sum(summary.get("stages", {}).values())),
        tasks=tasks,
        problem=problem,
    )


def _result(arm: Arm, task: str) -> TaskResult:
    stages = {stage: values[0] for stage in STAGES if (values := arm.values(stage, task))}
    gains = {base: arm.gain(base, task) for base in BASELINES}
    return TaskResult(
        find_task(task).main_metric, stages, {base: gain for base, gain in gains.items() if isinstance(gain, Gain)}
    )


def print_runs(title: str, runs: Sequence[RunState], form: str = "text") -> None:
    """A table with a row a run, and with several tasks one more a further task."""
    results = [result for run in runs for result in run.tasks.values()]
    stages = [stage for stage in STAGES if any(stage in result.stages for result in results)]
    bases = [base for base in BASELINES if any(base in result.gain for result in results)]
    headings = ["seed", "started", "time", *(["metric"] if results else []), *(STAGES[stage] for stage in stages)]
    headings += [*(f"gain over {STAGES[base]}" for base in bases), "state", "run"]
    rows = []
    for run in runs:
        for position, (task, result) in enumerate(run.tasks.items() or [("", TaskResult("", {}, {}))]):
            about = [str(run.seed), run.started[:16], clock(run.seconds) if run.seconds else "-"]
            cells = about if position == 0 else [""] * len(about)
            cells += [f"{find_task(task).main_heading} ({task})" if task else "-"] if results else []
            cells += [f"{result.stages[stage]:.3f}" if stage in result.stages else "-" for stage in stages]
            cells += [result.gain[base].shown() if base in result.gain else "-" for base in bases]
            rows.append([Text(cell) for cell in (*cells, *((run.progress, run.name) if position == 0 else ("", "")))])
    print_table(plain_table(title, headings, rows), form)
