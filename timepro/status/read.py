"""What a run is doing, put together from the files of its folder; also of one that has finished, or died."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timepro.names import require_run
from timepro.run_lock import owner_of
from timepro.runs import path_from, read_identity, read_settings, read_summary
from timepro.status.files import SILENT_S, NodeReport, Progress, StageReport, read_nodes, read_progress

_RECENT = 20  # rows of metrics that the pace is taken from
_KEPT = "cache"
_CONFIG = "config.yaml"
# What is shown of the last recorded step, by the name it is logged under.
NUMBERS = {
    "perf/tokens_per_second": "tokens_per_second",
    "perf/answers_per_second": "answers_per_second",
    "sampling/staleness": "staleness",
    "reward": "reward",
    "loss": "loss",
}


@dataclass(frozen=True)
class NodeStatus:
    """A node, and how long ago it has written; `silent`: longer ago than it should."""

    report: NodeReport
    age_s: float
    silent: bool


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run.

    Args:
        state: running, silent (it is locked or was alive a moment ago, but its launcher gives no sign), finished or
            stopped.
        why: how it has ended or what is wrong; empty while it runs.
        last_sign, age_s: when any of its processes has last written something, and how long ago; None: never.
        stage, stage_s: what it is at, and for how long.
        job, step, of: the learner's job that the numbers below are of; `of` is 0 where time bounds it.
        phase, phase_s: what rank 0 of the learner is doing within the step.
        step_s: seconds a step, a mean over the last ones; None before the second.
        phases: seconds of the last step by phase.
        numbers: of the last recorded step, by `NUMBERS`.
        eta_s, later: seconds to the end of the run, and those of the stages that are still to come; None where nobody
            knows.
    """

    run: Path
    state: str
    why: str
    started: str
    last_sign: float | None
    age_s: float | None
    stage: str = ""
    stage_s: float | None = None
    job: str = ""
    step: int = 0
    of: int = 0
    phase: str = ""
    phase_s: float | None = None
    step_s: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    eta_s: float | None = None
    later: dict[str, float | None] = field(default_factory=dict)
    nodes: tuple[NodeStatus, ...] = ()


def status_of(run: Path, now: float | None = None) -> RunStatus:
    """What a run is doing.

    Args:
        now: seconds since 1970.

    Raises:
        ValueError: it is no run's folder, or its files are of another version.
    """
    require_run(run)
    if not (run / _CONFIG).is_file():
        raise ValueError(f"{run} holds no {_CONFIG}, which every run has; name a run's folder, runs/NAME")
    now = time.time() if now is None else now
    reports = read_nodes(run)
    stage = next((report.stage for report in reports if report.stage is not None), None)
    work, kind, title = _job(run, stage)
    progress = read_progress(work, kind)
    rows = _metrics(work / f"metrics.{kind}.jsonl")
    signs = [report.written for report in reports] + ([progress.written] if progress is not None else [])
    if not signs:  # of a version without these files, or before the first
        signs = [path.stat().st_mtime for path in (work / f"metrics.{kind}.jsonl", run / _CONFIG) if path.is_file()][:1]
    last = max(signs, default=None)
    state, why = _state(run, reports, now)
    alive = state in ("running", "silent")
    found: dict[str, Any] = {}
    if stage is not None:
        found |= {"stage": stage.name, "stage_s": now - stage.began if alive else None}
    step = progress.step if progress is not None else max((int(row["step"]) for row in rows), default=0)
    of = progress.of if progress is not None else _steps_of(run, kind)
    if progress is not None and alive and stage is not None and stage.kind == kind:
        found |= {"phase": progress.phase, "phase_s": now - progress.phase_began}
    step_s = _pace(rows)
    if alive and stage is not None:
        found["eta_s"], found["later"] = _eta(stage, progress, step_s, now)
    return RunStatus(
        run=run,
        state=state,
        why=why,
        started=str(read_identity(run).get("started", "")),
        last_sign=last,
        age_s=None if last is None else max(0.0, now - last),
        job=title,
        step=step,
        of=of,
        step_s=step_s,
        phases=_phases(rows),
        numbers=_numbers(rows),
        nodes=tuple(_node_status(report, alive, now) for report in reports),
        **found,
    )


def newest_run(runs: Path) -> Path:
    """The run below a folder that has given a sign of life last.

    Raises:
        ValueError: there is none.
    """
    found = []
    for folder, below, files in os.walk(runs):
        if _CONFIG in files:
            run = Path(folder)
            written = [path.stat().st_mtime for path in (run / "status").glob("node-*.json")]
            found.append((max([*written, (run / _CONFIG).stat().st_mtime]), run))
        below[:] = [] if _CONFIG in files else [name for name in below if name != _KEPT]
    if not found:
        raise ValueError(f"there is no run below {runs}; name a run's folder")
    return max(found)[1]


def _job(run: Path, stage: StageReport | None) -> tuple[Path, str, str]:
    """The folder, the kind and the title of the learner's job that the run is at; GRPO's where it is at none."""
    if stage is None or not stage.kind:
        return run, "grpo", "GRPO"
    return path_from(run, stage.work), stage.kind, stage.title


def _state(run: Path, reports: list[NodeReport], now: float) -> tuple[str, str]:
    head = next((report for report in reports if report.node == 0), None)
    silent = head is None or now - head.written > SILENT_S
    if (owner := owner_of(run)) or (head is not None and not head.ended and not silent):
        if head is not None and silent:
            where = f"process {head.pid} on {head.host}"
            return (
                "silent",
                f"its launcher ({where}) has given no sign for {now - head.written:.0f} s: stopped, or hung",
            )
        return "running", "" if head is not None else f"process {owner}"
    ended = head.ended if head is not None else ""
    if ended == "done" or (not ended and read_summary(run)):
        return "finished", ""
    return "stopped", ended or "it ended without a word: killed, or its machine was lost"


def _node_status(report: NodeReport, alive: bool, now: float) -> NodeStatus:
    age = max(0.0, now - report.written)
    return NodeStatus(report, age, alive and not report.ended and age > SILENT_S)


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of the last steps that were trained; those of evaluations alone are left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[-4 * _RECENT :]
    rows = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be in the making
    return [row for row in rows if "step_time" in row or "loss" in row][-_RECENT:]


def _steps_of(run: Path, kind: str) -> int:
    settings = read_settings(run).get(kind) or {}
    return int(settings.get("max_steps") or 0) if settings.get("enabled", True) else 0


def _pace(rows: list[dict[str, Any]]) -> float | None:
    """Seconds a step, what lies between steps included."""
    if len(rows) < 2 or rows[-1]["step"] <= rows[0]["step"]:
        return None
    return float(rows[-1]["elapsed_s"] - rows[0]["elapsed_s"]) / float(rows[-1]["step"] - rows[0]["step"])


def _phases(rows: list[dict[str, Any]]) -> dict[str, float]:
    if not rows:
        return {}
    return {key.removeprefix("time/"): float(value) for key, value in rows[-1].items() if key.startswith("time/")}


def _numbers(rows: list[dict[str, Any]]) -> dict[str, float]:
    found = {name: float(rows[-1][key]) for key, name in NUMBERS.items() if rows and key in rows[-1]}
    if rows and "step_time" in rows[-1]:
        found["step_time"] = float(rows[-1]["step_time"])
    return found


def _eta(
    stage: StageReport, progress: Progress | None, step_s: float | None, now: float
) -> tuple[float | None, dict[str, float | None]]:
    """Seconds to the end of the run, and those of later stages: measured for this stage, forecast for the others."""
    names = list(stage.forecast)
    later = {name: stage.forecast[name] for name in names[names.index(stage.name) + 1 :]} if stage.name in names else {}
    here: float | None = None
    if progress is not None and progress.kind == stage.kind and progress.of and step_s is not None:
        here = (progress.of - progress.step) * step_s
    elif (known := stage.forecast.get(stage.name)) is not None:
        here = max(0.0, known - (now - stage.began))
    return _sum({"here": here, **later}), later


def _sum(parts: Mapping[str, float | None]) -> float | None:
    known = [seconds for seconds in parts.values() if seconds is not None]
    return sum(known) if len(known) == len(parts) else None
