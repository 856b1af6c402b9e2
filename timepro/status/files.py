"""The files that a run's processes keep up to date, for `timepro status`: written whole, every few seconds.

    RUN/status/node-0.json       by the launcher of each node: memory, cards, processes; node 0 also the stage
    WORK/progress.grpo.json      by learner rank 0, beside its job's metrics: step and phase

Times are seconds since 1970 by the clock of the machine that writes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timepro.system.cards import CardReport
from timepro.system.files import write_json

FOLDER = "status"
EVERY_S = 2.0  # between two writings
SILENT_S = 30.0  # who has not written for so long is said to be silent


@dataclass(frozen=True)
class ProcessReport:
    """A learner rank or a rollout worker.

    Args:
        kind: "rank" or "worker".
        name: a rank's number, a worker's name.
        state: running, starting, stopped, ended, given up.
        memory_gib: with all it has started; shared pages count once (PSS).
        note: what it is doing, its address, or why it has ended.
    """

    kind: str
    name: str
    state: str
    pid: int = 0
    memory_gib: float = 0.0
    restarts: int = 0
    note: str = ""


@dataclass(frozen=True)
class StageReport:
    """What the whole run is at; node 0 knows.

    Args:
        name: "sft" or "grpo", for example.
        began: when.
        kind, title, work: of the learner's job that is running, or was last; empty: none yet. `work` is its folder,
            relative to the run's.
        forecast: the stages of the run in their order, and the seconds that each takes; None where nobody knows.
    """

    name: str
    began: float
    kind: str = ""
    title: str = ""
    work: str = ""
    forecast: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeReport:
    """One node.

    Args:
        written, began: now, and when its launcher has started.
        memory_gib, peak_gib: of the launcher and all it has started: the most since the last writing, and ever.
        machine_gib, machine_used_gib: of all main memory of the machine, whoever uses it.
        cpu: share of all cores of the machine that is in use, 0 to 1.
        busy_minute: of each card, in the order of `cards`: the mean of `busy` over the last minute.
        problem: what could not be found out, and why.
        ended: how the launcher has ended; empty while it runs, or where it could not say.
    """

    node: int
    nodes: int
    host: str
    pid: int
    written: float
    began: float
    memory_gib: float = 0.0
    peak_gib: float = 0.0
    machine_gib: float = 0.0
    machine_used_gib: float = 0.0
    cpu: float = 0.0
    cards: tuple[CardReport, ...] = ()
    busy_minute: tuple[float, ...] = ()
    processes: tuple[ProcessReport, ...] = ()
    stage: StageReport | None = None
    problem: str = ""
    ended: str = ""


@dataclass(frozen=True)
class Progress:
    """Where learner rank 0 is in its job.

    Args:
        of: all steps of the job; 0 where time bounds it.
        phase, phase_began: what it is doing, and since when.
    """

    kind: str
    step: int
    of: int
    phase: str
    phase_began: float
    written: float


def node_file(run: Path, node: int) -> Path:
    return run / FOLDER / f"node-{node}.json"


def write_node(run: Path, report: NodeReport) -> None:
    write_json(node_file(run, report.node), asdict(report))


def read_nodes(run: Path) -> list[NodeReport]:
    """What every node has written last, in their order.

    Raises:
        ValueError: a file that another version has written.
    """
    paths = sorted((run / FOLDER).glob("node-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
    return [_read(path, _node_of) for path in paths]


def _node_of(raw: dict[str, Any]) -> NodeReport:
    stage = raw.pop("stage")
    lists: dict[str, Any] = {
        "cards": tuple(CardReport(**card) for card in raw.pop("cards")),
        "processes": tuple(ProcessReport(**process) for process in raw.pop("processes")),
        "busy_minute": tuple(raw.pop("busy_minute")),
    }
    return NodeReport(**raw, **lists, stage=None if stage is None else StageReport(**stage))


def progress_file(work: Path, kind: str) -> Path:
    return work / f"progress.{kind}.json"


def write_progress(work: Path, progress: Progress) -> None:
    write_json(progress_file(work, progress.kind), asdict(progress))


def read_progress(work: Path, kind: str) -> Progress | None:
    """What learner rank 0 has written last; None where it has not yet.

    Raises:
        ValueError: another version has written the file.
    """
    path = progress_file(work, kind)
    return _read(path, lambda raw: Progress(**raw)) if path.is_file() else None


def _read(path: Path, made: Any) -> Any:
    try:
        return made(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not of this version of the program ({type(error).__name__}: {error}); look at the run with the "
            "version that made it"
        ) from error
