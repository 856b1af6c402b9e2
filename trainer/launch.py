"""Starting and watching processes: rollout workers and learner ranks, ended together whatever happens."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from rollout import stream
from rollout.auth import TOKEN_VARIABLE
from rollout.device import n_gpus, on_gpu
from rollout.worker import Worker, WorkerConfig, group_alive, log_tail, worker_command, worker_environment
from trainer import distributed
from trainer.experiment import ExperimentConfig, LearnerConfig
from trainer.job import JobSpec

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
    """The rollout workers of this machine."""

    def __init__(self, config: WorkerConfig, folder: Path, media_root: Path, logs: Path) -> None:
        """Start them; `wait` returns when they serve."""
        self.config = config
        self.token = secrets.token_urlsafe(32)
        self.workers: list[Worker] = []
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
                index,
                worker_command(config, folder, port, media_root),
                worker_environment(config, self.token, index),
                f"http://{config.host}:{port}",
                logs / f"worker-{index}.log",
            )
        )

    @property
    def urls(self) -> list[str]:
        return [worker.url for worker in self.workers]

    def wait(self) -> None:
        """Wait until every worker serves; raises RuntimeError with the worker's last words if one does not."""
        for worker in self.workers:
            worker.wait_ready(self.config.start_timeout_s)

    def end(self) -> None:
        """End all of them, with everything they started."""
        for worker in self.workers:
            worker.end()

    def tend(self) -> None:
        """Start workers again that have ended or fallen silent; to be called often.

        Raises:
            WorkersBeyondRepair: one of them more often than `max_restarts`.
        """
        config = self.config
        if time.monotonic() - self._asked > _HEALTH_EVERY_S:
            with ThreadPoolExecutor(len(self.workers)) as pool:
                list(pool.map(Worker.answers, self.workers))
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


def run_learner(job: JobSpec, config: ExperimentConfig, workers: WorkerSet | None) -> None:
    """Run a job on all learner ranks of this machine and wait for its end.

    Raises:
        RuntimeError: a rank or a worker failed; everything started here has ended by then.
        Interrupted: a signal came; the ranks have saved a checkpoint, or their time for it was over.
    """
    work = Path(job.work)
    work.mkdir(parents=True, exist_ok=True)
    n_ranks = affordable_ranks(config.learner)
    path = work / f"job.{job.kind}.json"
    job.save(path)
    store = stream.host_store("127.0.0.1", 0, config.learner.start_timeout_s)
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(n_ranks):
            ranks.append(_start_rank(rank, n_ranks, config.learner, path, store.port, workers))
        _watch(ranks, workers, work)
    except Interrupted as stop:
        print("\n  stopping: the learner saves a checkpoint", file=sys.stderr, flush=True)
        _end_ranks(ranks, stop.number, config.learner.stop_timeout_s)
        raise
    except WorkersBeyondRepair as failure:
        print(f"\n  stopping: {failure}", file=sys.stderr, flush=True)
        print("  the learner saves a checkpoint", file=sys.stderr, flush=True)
        _end_ranks(ranks, signal.SIGTERM, config.learner.stop_timeout_s)
        raise
    finally:
        _end_ranks(ranks, signal.SIGTERM, 5.0)
        del store


def affordable_ranks(config: LearnerConfig) -> int:
    """Learner ranks to start here: at most one a GPU, since NCCL takes no two on one card. Says when it is fewer."""
    if not on_gpu():
        return config.ranks
    cards = len(config.gpus.split(",")) if config.gpus else n_gpus()
    if config.ranks > cards:
        print(f"  learner.ranks={config.ranks}, but there are {cards} GPU(s): running {cards} rank(s)", file=sys.stderr)
    return min(config.ranks, cards)


def _start_rank(
    rank: int, n_ranks: int, config: LearnerConfig, job: Path, port: int, workers: WorkerSet | None
) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        distributed.RANK: str(rank),
        distributed.WORLD_SIZE: str(n_ranks),
        distributed.LOCAL_RANK: str(rank),
        distributed.STORE_HOST: "127.0.0.1",
        distributed.STORE_PORT: str(port),
        TOKEN_VARIABLE: workers.token if workers is not None else "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
    }
    if on_gpu():
        if config.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = config.gpus
    else:
        environment |= {"OMP_NUM_THREADS": str(config.threads), "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu"}
    log = job.parent / f"learner-{rank}.log"
    command = [sys.executable, "-m", "trainer.learner", str(job)]
    # Rank 0 speaks to the terminal; the others' words are kept for when something fails. A session of its own, so
    # that a Ctrl-C reaches the launcher alone, which passes it on once.
    with log.open("wb") as sink:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
            stdout=sink, stderr=None if rank == 0 else sink,
        )  # fmt: skip


def _watch(ranks: list[subprocess.Popen[bytes]], workers: WorkerSet | None, work: Path) -> None:
    while True:
        codes = [process.poll() for process in ranks]
        if all(code == 0 for code in codes):
            return
        for rank, code in enumerate(codes):
            if code not in (None, 0):
                tail = log_tail(work / f"learner-{rank}.log") if rank else "see the lines above"
                raise RuntimeError(
                    f"learner rank {rank} ended with exit code {code}; the others are ended too.\n{tail}"
                )
        if workers is not None:
            workers.tend()
        time.sleep(0.1)


def _end_ranks(ranks: list[subprocess.Popen[bytes]], number: int, grace_s: float) -> None:
    for process in ranks:
        if process.poll() is None:
            process.send_signal(number)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(process.poll() is None for process in ranks):
        time.sleep(0.1)
    for process in ranks:
        if group_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
