"""What this node's part of a run takes and does: sampled every few seconds, for `timepro status` and the summary."""

from __future__ import annotations

import math
import os
import shutil
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Protocol

import psutil

from rollout.worker import Worker
from timepro.runs import path_in
from timepro.status.files import (
    EVERY_S,
    FOLDER,
    NodeReport,
    ProcessReport,
    StageReport,
    progress_file,
    read_nodes,
    write_node,
)
from timepro.system.cards import CardReport, Cards
from trainer.launcher.signals import Interrupted
from trainer.messages import JobSpec

_MINUTE_S = 60.0
_LONGEST_REASON = 500  # characters of why a run has failed


class WorkersHere(Protocol):
    """The rollout workers of a node: those that run, and why others were given up."""

    workers: list[Worker]
    lost: list[str]


class NodeWatch:
    """Samples memory, cards and processes in a thread of its own; a context, whose end says how the launcher ended.

    Memory is that of this process and all it has started, where shared pages count once (PSS).

    Attributes:
        workers: the rollout workers of this node; None while there are none.
        node, nodes: this one's number, and of how many.
    """

    def __init__(self, node: int = 0, nodes: int = 1, interval_s: float = EVERY_S) -> None:
        self.node, self.nodes, self.peak_bytes = node, nodes, 0
        self.workers: WorkersHere | None = None
        self._ranks: tuple[int, Sequence[Popen[bytes]]] = (0, ())  # the first one's number
        self._run: Path | None = None
        self._stage: StageReport | None = None
        self._forecast: dict[str, float | None] = {}
        self._recent = self._taken = self._unwritten = 0
        self._others_gib: dict[int, float] = {}  # the most that each other node has taken
        self._cards, self._busy = Cards(), deque[tuple[float, list[CardReport]]]()
        self._began, self._interval_s, self._problem = time.time(), interval_s, ""
        self._stop, self._now = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="node-watch", daemon=True)

    def __enter__(self) -> NodeWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._now.set()
        self._thread.join(timeout=10)
        self._ranks, self.workers = (0, ()), None
        with self._faults_said():
            self._write(_how_it_ended(error))

    # --- what the launcher tells

    def report_to(self, run: Path, anew: bool = False) -> None:
        """Write into a run's folder from now on.

        Args:
            anew: remove what an earlier start of the run has left; node 0 does, before the others write.
        """
        if anew:
            shutil.rmtree(run / FOLDER, ignore_errors=True)
        self._run = run
        self._now.set()

    def expect(self, forecast: Mapping[str, float]) -> None:
        """The stages that the run has before it, in their order, and the seconds of each; NaN where nobody knows."""
        self._forecast = {name: None if math.isnan(seconds) else seconds for name, seconds in forecast.items()}

    def at(self, stage: str) -> None:
        """A stage begins."""
        self._ranks = (0, ())
        self._stage = StageReport(stage, time.time(), forecast=self._forecast)
        self._now.set()

    def job(self, job: JobSpec) -> None:
        """A job of the learner begins, within the stage."""
        work = Path(job.work)
        progress_file(work, job.kind).unlink(missing_ok=True)  # of an earlier start
        stage = self._stage or StageReport(job.kind, time.time())
        if self._run is not None:
            place = Path(path_in(self._run, work / job.kind)).parent
            self._stage = replace(stage, kind=job.kind, title=job.title, work=str(place))
        self._now.set()

    def ranks(self, first: int, processes: Sequence[Popen[bytes]]) -> None:
        """The learner ranks of this node, until others are named."""
        self._ranks = (first, list(processes))

    def take_peak_gib(self) -> float:
        """The most that one node has taken since this was last called."""
        self._taken += 1
        peak, self._recent = self._recent, 0
        most = max([peak / 2**30, *self._others_gib.values()])
        self._others_gib.clear()
        return most

    def node_peaks_gib(self) -> dict[int, float]:
        """The most that each node has taken, by its number."""
        others = {} if self._run is None else {report.node: report.peak_gib for report in read_nodes(self._run)}
        return others | {self.node: self.peak_bytes / 2**30}

    # --- the thread

    def _work(self) -> None:
        while not self._stop.is_set():
            self._now.wait(self._interval_s)
            self._now.clear()
            if not self._stop.is_set():
                with self._faults_said():
                    self.look()

    @contextmanager
    def _faults_said(self) -> Iterator[None]:
        """A fault of the watching ends neither the watching nor the run: it is said once, and the next look may do."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a driver, a process table or a file system may raise
            said = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            if said != self._problem:
                self._problem = said
                print(f"  timepro status will not know of this node: {said}", file=sys.stderr, flush=True)

    def look(self) -> None:
        """Take one sample. One during which the peak was taken belongs to what was before."""
        taken, used = self._taken, _memory_by_process()
        total = sum(memory for _, memory in used.values())
        self.peak_bytes = max(self.peak_bytes, total)
        self._unwritten = max(self._unwritten, total)
        if taken == self._taken:
            self._recent = max(self._recent, total)
        now, cards = time.time(), self._cards.look()
        self._busy.append((now, cards))
        while self._busy and now - self._busy[0][0] > _MINUTE_S:
            self._busy.popleft()
        self._write("", cards, used)
        self._hear_others()

    def _write(
        self, ended: str, cards: Sequence[CardReport] = (), used: Mapping[int, tuple[int, int]] | None = None
    ) -> None:
        if self._run is None or not self._run.is_dir():
            return
        machine = psutil.virtual_memory()
        report = NodeReport(
            node=self.node, nodes=self.nodes, host=socket.gethostname(), pid=os.getpid(), written=time.time(),
            began=self._began, memory_gib=self._unwritten / 2**30, peak_gib=self.peak_bytes / 2**30,
            machine_gib=machine.total / 2**30, machine_used_gib=(machine.total - machine.available) / 2**30,
            cpu=psutil.cpu_percent() / 100, cards=tuple(cards), busy_minute=tuple(map(self._busy_minute, cards)),
            processes=tuple(self._processes(used or {})), stage=self._stage, problem=self._cards.problem, ended=ended,
        )  # fmt: skip
        write_node(self._run, report)
        self._unwritten, self._problem = 0, ""

    def _busy_minute(self, card: CardReport) -> float:
        found = [other.busy for _, cards in self._busy for other in cards if other.index == card.index]
        return sum(found) / max(len(found), 1)

    def _hear_others(self) -> None:
        """Node 0 keeps the most that the other nodes take, for what a stage has taken."""
        if self.node or self.nodes == 1 or self._run is None:
            return
        for report in read_nodes(self._run):
            if report.node:
                known = self._others_gib.get(report.node, 0.0)
                self._others_gib[report.node] = max(known, report.memory_gib)

    def _processes(self, used: Mapping[int, tuple[int, int]]) -> list[ProcessReport]:
        first, ranks = self._ranks
        found = [
            ProcessReport("rank", str(first + local), _state(process), process.pid, _gib_of(process.pid, used))
            for local, process in enumerate(ranks)
        ]
        workers = self.workers
        if workers is None:
            return found
        for worker in list(workers.workers):
            state = _state(worker.process)
            if state == "running" and not worker.served:
                state = "starting"
            memory = _gib_of(worker.process.pid, used)
            found.append(
                ProcessReport(
                    "worker", worker.index, state, worker.process.pid, memory, worker.restarts, worker.url
                )
            )  # fmt: skip
        return found + [ProcessReport("worker", "", "given up", note=why.splitlines()[0]) for why in workers.lost]


def _state(process: Popen[bytes]) -> str:
    if process.returncode is not None:
        return f"ended ({process.returncode})"
    try:
        status = psutil.Process(process.pid).status()
    except psutil.NoSuchProcess:
        return "ended"
    return {psutil.STATUS_STOPPED: "stopped", psutil.STATUS_ZOMBIE: "ended"}.get(status, "running")


def _memory_by_process() -> dict[int, tuple[int, int]]:
    """Of this process and of all it has started, by process id: who has started it, and its bytes (PSS)."""
    me, found = psutil.Process(), {}
    for process in [me, *me.children(recursive=True)]:
        try:
            found[process.pid] = (process.ppid(), process.memory_full_info().pss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended between listing and reading
    return found


def _gib_of(pid: int, used: Mapping[int, tuple[int, int]]) -> float:
    """GiB of a process and of all it has started."""
    family, before = {pid}, 0
    while len(family) > before:
        before = len(family)
        family |= {child for child, (parent, _) in used.items() if parent in family}
    return sum(used[member][1] for member in family if member in used) / 2**30


def _how_it_ended(error: BaseException | None) -> str:
    if error is None:
        return "done"
    if isinstance(error, Interrupted):
        return f"stopped by {error}"
    return f"failed: {str(error) or type(error).__name__}"[:_LONGEST_REASON]
