"""Starting and watching the rollout workers, ended together whatever happens."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rollout.client import RolloutPool
from rollout.phases import read_phase
from rollout.settings import AdapterShape, WorkerConfig
from rollout.worker import Worker, worker_command, worker_environment
from timepro.feature_cache import CachePlace
from timepro.system.network import free_port, require_free
from timepro.system.processes import log_tail
from trainer.launcher.nodes.head import Nodes
from trainer.settings.experiment import ExperimentConfig

_HEALTH_EVERY_S = 3.0  # between two questions to all workers
_WELL_S = 3600.0  # a worker that has run for so long has all its restarts again


class TooFewWorkers(RuntimeError):
    """So many rollout workers have failed for good that the run does not go on with the others."""


class WorkerSet:
    """The rollout workers of this machine.

    Args:
        media: folders of audio that may be given by path.
        token: what they want to see with every request; empty: a new one.
        label: of this machine, where there are several: it begins the workers' names.
        adapters: which the weight stream will bring; None where it brings whole weights.
        features: where clips' features are kept; None: nowhere.
        profile: where traces go, a folder a worker, when a profile is asked for; None: none ever is.
        deltas: whether the weight stream may bring deltas.
    """

    def __init__(
        self,
        config: WorkerConfig,
        folder: Path,
        media: Sequence[Path],
        logs: Path,
        token: str = "",
        label: str = "",
        adapters: AdapterShape | None = None,
        features: CachePlace | None = None,
        profile: Path | None = None,
        deltas: bool = False,
    ) -> None:
        """Start them; `wait` returns when they serve."""
        self.config = config
        self.token = token or secrets.token_urlsafe(32)
        self._label, self._features, self._profile, self._deltas = label, features, profile, deltas
        self.workers: list[Worker] = []
        self.lost: list[str] = []  # why workers were dropped, one text each
        # A question waits for the engine's step to end; whoever tends the workers must not.
        self._questions = ThreadPoolExecutor(config.workers, thread_name_prefix="worker-health")
        self._asking: dict[str, Future[bool]] = {}
        self._asked = time.monotonic()
        try:
            for index in range(config.workers):
                self._start(index, folder, media, logs, adapters)
        except BaseException:  # a port in use, or a signal: those that run already must not stay behind
            self.end()
            raise

    def _start(
        self, index: int, folder: Path, media: Sequence[Path], logs: Path, adapters: AdapterShape | None
    ) -> None:
        config = self.config
        port = config.base_port + index if config.base_port else free_port(config.host)
        require_free(config.host, port)
        name = f"{self._label}{index}"
        profile = self._profile / f"worker-{name}" if self._profile is not None else None
        self.workers.append(
            Worker(
                name,
                worker_command(config, folder, port, adapters, profile, name, self._deltas),
                worker_environment(config, self.token, index, media, self._features),
                f"http://{config.host}:{port}",
                logs / f"worker-{name}.log",
            )
        )

    @property
    def urls(self) -> list[str]:
        return [worker.url for worker in self.workers]

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until every worker serves; raises RuntimeError with the worker's last words if one does not."""
        for worker in self.workers:
            worker.wait_ready(self.config.start_timeout_s, meanwhile)

    def phase(self) -> str:
        """What the first worker that does not serve yet is doing."""
        return next((read_phase(worker.log) for worker in self.workers if not worker.served), "")

    def ready(self) -> bool:
        """Whether every worker serves; raises RuntimeError where one has ended, or its time is over."""
        return all(worker.ready(self.config.start_timeout_s) for worker in self.workers)

    def end(self) -> None:
        """End all of them, with everything they started."""
        for worker in self.workers:
            worker.end()
        self._questions.shutdown(wait=False, cancel_futures=True)

    def tend(self) -> None:
        """Start workers again that have ended or fallen silent, and drop who did so too often; to be called often."""
        config = self.config
        if time.monotonic() - self._asked > _HEALTH_EVERY_S:
            for worker in self.workers:
                if worker.index not in self._asking or self._asking[worker.index].done():
                    ask = self._questions.submit(worker.engine_answers, config.silence_timeout_s)
                    self._asking[worker.index] = ask
            self._asked = time.monotonic()
        for worker in list(self.workers):
            why = worker.complaint(config.start_timeout_s, config.silence_timeout_s)
            if not why:
                continue
            if time.monotonic() - worker.started > max(_WELL_S, config.start_timeout_s):
                worker.restarts = 0
            if worker.restarts >= config.max_restarts:
                self._drop(worker, why)
                continue
            print(f"\n  rollout worker {worker.index} {why}; starting it again", file=sys.stderr, flush=True)
            worker.restart()

    def _drop(self, worker: Worker, why: str) -> None:
        """End a worker for good. The learner asks who answers before every sync, and so does without it."""
        words = (
            f"rollout worker {worker.index} {why} and has been started again {worker.restarts} times already "
            f"(rollout.max_restarts)"
        )
        print(f"\n  {words}; it is given up. Its log: {worker.log}", file=sys.stderr, flush=True)
        self.lost.append(f"{words}; its log: {worker.log}\n{log_tail(worker.log)}")
        self.workers.remove(worker)
        worker.end()


class Fleet:
    """All rollout workers of a run: those of this node and, where there are more nodes, those of the others."""

    def __init__(self, config: ExperimentConfig, folder: Path, media: Sequence[Path], logs: Path, nodes: Nodes) -> None:
        """Start them; `wait` returns when all of them serve."""
        self._nodes, self._config = nodes, config.rollout
        self.token = nodes.worker_token(secrets.token_urlsafe(32))
        self.urls: list[str] = []
        rollout = replace(config.rollout, host=nodes.node.reachable(config.rollout.host))
        nodes.start_workers(folder, media, logs)
        here = nodes.generates_here()
        place, shape = config.data.feature_cache.place(config.runs), config.lora.shape
        profile, deltas = config.profile.folder(logs.parent), config.sends_deltas
        known = (self.token, "", shape, place, profile, deltas)
        self._here = WorkerSet(rollout, folder, media, logs, *known) if here else None
        nodes.watch.workers = self._here

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until every worker serves, calling `meanwhile` again and again.

        Raises:
            RuntimeError: one does not, with its last words.
        """

        def each_time() -> None:
            self._nodes.poll()
            meanwhile()

        if self._here is not None:
            self._here.wait(each_time)
        self.urls = (self._here.urls if self._here else []) + self._nodes.await_workers(self._config.start_timeout_s)

    @contextmanager
    def pool(self) -> Iterator[RolloutPool]:
        """A client of all of them for the block; only after `wait`."""
        pool = RolloutPool.of(self._config, self.urls, self.token)
        try:
            yield pool
        finally:
            pool.close()

    def phase(self) -> str:
        """What this node's slowest worker is doing while it starts."""
        return self._here.phase() if self._here is not None else "the other nodes"

    def end(self) -> None:
        """End all of them."""
        self._nodes.end_workers()
        self._nodes.watch.workers = None
        if self._here is not None:
            self._here.end()

    def tend(self) -> None:
        """As `WorkerSet.tend`; every node tends its own.

        Raises:
            TooFewWorkers: fewer than `rollout.min_workers` are left on all nodes together.
        """
        lost = self._nodes.lost_workers()
        if self._here is not None:
            self._here.tend()
            lost = [*self._here.lost, *lost]
        if lost and len(self.urls) - len(lost) < self._config.min_workers:
            raise TooFewWorkers(
                f"{len(self.urls) - len(lost)} of {len(self.urls)} rollout workers are left, rollout.min_workers is "
                f"{self._config.min_workers}:\n" + "\n".join(lost)
            )
