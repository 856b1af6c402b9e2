"""Starting and watching processes: rollout workers and learner ranks, ended together whatever happens."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rollout.settings import WorkerConfig
from rollout.worker import Worker, worker_command, worker_environment
from timepro.system.network import free_port, require_free
from timepro.system.processes import log_tail
from trainer.launcher.nodes.head import Nodes
from trainer.settings.experiment import ExperimentConfig

_HEALTH_EVERY_S = 3.0  # between two questions to all workers


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
