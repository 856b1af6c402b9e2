"""Starting and watching processes: rollout workers and learner ranks, ended together whatever happens."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import psutil

from rollout import stream
from rollout.worker import Worker, WorkerConfig, log_tail, worker_command, worker_environment
from trainer.experiment import ExperimentConfig
from trainer.job import JobSpec
from trainer.nodes.head import Nodes, RemoteWorkersFailed
from trainer.ranks import RankPlan, RankWatch, end_ranks, start_ranks

_HEALTH_EVERY_S = 3.0  # between two questions to all workers


class Interrupted(Exception):
    """A signal asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Within this context SIGINT and SIGTERM raise `Interrupted` once; later ones are ignored while cleaning up."""

    def handler(number: int, frame: FrameType | None) -> None:
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.SIG_IGN)
        raise Interrupted(number)

    before = {sign: signal.signal(sign, handler) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, previous in before.items():
            signal.signal(sign, previous)


class WorkersBeyondRepair(RuntimeError):
    """A rollout worker failed more often than it may be started again."""


class WorkerSet:
    """The rollout workers of this machine.

    Args:
        token: what they want to see with every request; empty: a new one.
        label: of this machine, where there are several: it begins the workers' names.
    """

    def __init__(
        self, config: WorkerConfig, folder: Path, media_root: Path, logs: Path, token: str = "", label: str = ""
    ) -> None:
        """Start them; `wait` returns when they serve."""
        self.config = config
        self.token = token or secrets.token_urlsafe(32)
        self._label = label
        self.workers: list[Worker] = []
        # A question waits for the engine's step to end; whoever tends the workers must not.
        self._questions = ThreadPoolExecutor(config.workers, thread_name_prefix="worker-health")
        self._asking: dict[str, Future[bool]] = {}
        self._asked = time.monotonic()
        try:
            for index in range(config.workers):
                self._start(index, folder, media_root, logs)
        except BaseException:  # a port in use, or a signal: those that run already must not stay behind
            self.end()
            raise

    def _start(self, index: int, folder: Path, media_root: Path, logs: Path) -> None:
        config = self.config
        port = config.base_port + index if config.base_port else free_port(config.host)
        require_free(config.host, port)
        self.workers.append(
            Worker(
                f"{self._label}{index}",
                worker_command(config, folder, port, media_root),
                worker_environment(config, self.token, index),
                f"http://{config.host}:{port}",
                logs / f"worker-{self._label}{index}.log",
            )
        )

    @property
    def urls(self) -> list[str]:
        return [worker.url for worker in self.workers]

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until every worker serves; raises RuntimeError with the worker's last words if one does not."""
        for worker in self.workers:
            worker.wait_ready(self.config.start_timeout_s, meanwhile)

    def ready(self) -> bool:
        """Whether every worker serves; raises RuntimeError where one has ended, or its time is over."""
        return all(worker.ready(self.config.start_timeout_s) for worker in self.workers)

    def end(self) -> None:
        """End all of them, with everything they started."""
        for worker in self.workers:
            worker.end()
        self._questions.shutdown(wait=False, cancel_futures=True)

    def tend(self) -> None:
        """Start workers again that have ended or fallen silent; to be called often.

        Raises:
            WorkersBeyondRepair: one of them more often than `max_restarts`.
        """
        config = self.config
        if time.monotonic() - self._asked > _HEALTH_EVERY_S:
            for worker in self.workers:
                if worker.index not in self._asking or self._asking[worker.index].done():
                    ask = self._questions.submit(worker.engine_answers, config.silence_timeout_s)
                    self._asking[worker.index] = ask
            self._asked = time.monotonic()
        for worker in self.workers:
            why = worker.complaint(config.start_timeout_s, config.silence_timeout_s)
            if not why:
                continue
            if worker.restarts >= config.max_restarts:
                raise WorkersBeyondRepair(
                    f"rollout worker {worker.index} {why} and has been started again {worker.restarts} times already "
                    f"(rollout.max_restarts); its log: {worker.log}\n{log_tail(worker.log)}"
                )
            print(f"\n  rollout worker {worker.index} {why}; starting it again", file=sys.stderr, flush=True)
            worker.restart()


class Fleet:
    """All rollout workers of a run: those of this node and, where there are more nodes, those of the others."""

    def __init__(self, config: ExperimentConfig, folder: Path, media_root: Path, logs: Path, nodes: Nodes) -> None:
        """Start them; `wait` returns when all of them serve."""
        self._nodes, self._timeout_s = nodes, config.rollout.start_timeout_s
        self.token = nodes.worker_token(secrets.token_urlsafe(32))
        self.urls: list[str] = []
        rollout = replace(config.rollout, host=nodes.node.reachable(config.rollout.host))
        nodes.start_workers(folder, media_root, logs)
        here = nodes.generates_here()
        self._here = WorkerSet(rollout, folder, media_root, logs, self.token) if here else None

    def wait(self) -> None:
        """Wait until every worker serves; raises RuntimeError with its last words if one does not."""
        if self._here is not None:
            self._here.wait(self._nodes.poll)
        self.urls = (self._here.urls if self._here else []) + self._nodes.await_workers(self._timeout_s)

    def end(self) -> None:
        """End all of them."""
        self._nodes.end_workers()
        if self._here is not None:
            self._here.end()

    def tend(self) -> None:
        """As `WorkerSet.tend`; every node tends its own."""
        if self._here is not None:
            self._here.tend()


def run_learner(job: JobSpec, config: ExperimentConfig, workers: Fleet | None, nodes: Nodes) -> None:
    """Run a job on all learner ranks of all nodes and wait for its end.

    Raises:
        RuntimeError: a rank, a worker or a node failed; everything started here has ended by then.
        Interrupted: a signal came; the ranks have saved a checkpoint, or their time for it was over.
    """
    work, grace_s = Path(job.work), config.learner.stop_timeout_s
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"job.{job.kind}.json"
    job.save(path)
    store = stream.host_store("127.0.0.1", 0, config.learner.start_timeout_s)
    plans = nodes.plans(config, "127.0.0.1", store.port)
    nodes.start_ranks(plans, path)
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        ranks += start_ranks(plans[0], config.learner, path, workers.token if workers is not None else "")
        watch = RankWatch(ranks, plans[0], work, config.learner.silence_timeout_s)
        _watch(ranks, plans, workers, nodes, watch)
    except Interrupted as stop:
        print("\n  stopping: the learner saves a checkpoint", file=sys.stderr, flush=True)
        nodes.end_ranks(stop.number, grace_s)
        end_ranks(ranks, stop.number, grace_s)
        raise
    except (WorkersBeyondRepair, RemoteWorkersFailed) as failure:
        print(f"\n  stopping: {failure}", file=sys.stderr, flush=True)
        print("  the learner saves a checkpoint", file=sys.stderr, flush=True)
        nodes.end_ranks(signal.SIGTERM, grace_s)
        end_ranks(ranks, signal.SIGTERM, grace_s)
        raise
    finally:
        if any(process.poll() != 0 for process in ranks):
            nodes.end_ranks(signal.SIGTERM, 5.0)
        end_ranks(ranks, signal.SIGTERM, 5.0)
        del store


def _watch(
    ranks: list[subprocess.Popen[bytes]],
    plans: dict[int, RankPlan],
    workers: Fleet | None,
    nodes: Nodes,
    watch: RankWatch,
) -> None:
    while not (all(process.poll() == 0 for process in ranks) and nodes.ranks_done(plans)):
        if failure := watch.failure():
            nodes.explain()
            raise RuntimeError(failure)
        if workers is not None:
            workers.tend()
        nodes.poll()
        time.sleep(0.1)


def free_port(host: str) -> int:
    """A port that nothing listens on right now."""
    sock = stream.listening_socket(host)
    try:
        return int(sock.getsockname()[1])
    finally:
        sock.close()


def require_free(host: str, port: int) -> None:
    """Refuse a port that is in use, before a minute of start-up is spent on it.

    Raises:
        ValueError: naming the port and the key to change.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"port {port} on {host} cannot be used for a rollout worker: {error.strerror}; "
                "set rollout.base_port to another one, or to 0 for free ones"
            ) from error


class MemoryWatch:
    """Samples the memory of this process and all it started; shared pages count once (PSS)."""

    def __init__(self, interval_s: float = 2.0) -> None:
        self.peak_bytes = 0
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(self._interval_s):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # ended between listing and reading
            self.peak_bytes = max(self.peak_bytes, total)
