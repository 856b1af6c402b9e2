"""Going on when rollout workers fail: the others take over, and who comes back gets the current weights.

The launcher starts a failed worker again; the learner does not wait for it as long as `rollout.min_workers` others
answer. Before every sync it asks all of them, so one that has come back takes part from then on.

Nothing of a step is kept before all of its groups are there, so a step whose groups failed asks for them once more.
Seeds depend on the sample, so they are the same groups, and each is trained on once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from rollout.client import RolloutPool, WorkerError
from rollout.settings import WorkerConfig
from trainer.learner import distributed
from trainer.learner.sender import SyncError, SyncReport, WeightSender

T = TypeVar("T")
_POLL_S = 0.5
_BACK, _LATE, _STOPPED = "back", "late", "stopped"


class WorkersLost(RuntimeError):
    """The workers did not come back, or the run was asked to stop while it waited for them."""


class Recovery:
    """What a run does about failing workers. All methods but the constructor are collectives.

    Args:
        pool: is told which workers have the current weights.
        stop: tells whether the run shall stop instead of waiting.
    """

    def __init__(
        self, sender: WeightSender, pool: RolloutPool, config: WorkerConfig, stop: distributed.StopRequest
    ) -> None:
        self._sender, self._pool, self._config, self._stop = sender, pool, config, stop
        self.count = 0

    @property
    def checksum_failures(self) -> int:
        """Syncs that failed on their checksum so far (on rank 0)."""
        return self._sender.checksum_failures

    def attempt(self, work: Callable[[], T], version: int) -> T:
        """The result of `work`, which asks the workers; where it fails on any rank, again after a sync.

        Args:
            work: called on every rank; raises WorkerError where the workers failed.
            version: the weights to bring them to.

        Raises:
            WorkersLost: too few of them came back in time, or they failed more often than they may be restarted.
        """
        error = ""
        for _ in range(self._attempts):
            error, result = "", None
            try:
                result = work()
            except WorkerError as failure:
                error = str(failure)
            if not distributed.any_rank(bool(error)):
                return result  # type: ignore[return-value]  # no error: `work` has returned
            self._recover(error, version)
        raise WorkersLost(f"the rollout workers failed in {self._attempts} attempts: {error or 'see the other ranks'}")

    def deliver(self, version: int) -> SyncReport:
        """Bring all workers that answer to `version`.

        Raises:
            WorkersLost: as `attempt`.
        """
        try:
            return self._bring(version)
        except SyncError as failure:
            return self._recover(str(failure), version)

    @property
    def _attempts(self) -> int:
        return self._config.max_restarts + 1

    def _bring(self, version: int) -> SyncReport:
        report = self._sender.deliver(version)
        self._pool.use(self._sender.members)
        return report

    def _recover(self, error: str, version: int) -> SyncReport:
        """Wait until enough workers answer, then bring them to `version`."""
        for _ in range(self._attempts):
            self.count += 1
            distributed.say(f"waiting for the rollout workers: {error[:300]}")
            began = time.monotonic()
            self._wait()
            try:
                report = self._bring(version)
            except SyncError as failure:
                error = str(failure)
                continue
            words = f"{report.workers} worker(s) have weights {version} again"
            distributed.say(f"{words}, {time.monotonic() - began:.1f} s later")
            return report
        raise WorkersLost(f"the rollout workers could not be brought to weights {version}: {error}")

    def _wait(self) -> None:
        """Rank 0 asks the workers' engines; the others wait for its word."""
        outcome, limit, needed = _LATE, self._config.start_timeout_s, self._config.min_workers
        if distributed.rank() == 0:
            deadline = time.monotonic() + limit
            while time.monotonic() < deadline:
                if self._stop.signal:
                    outcome = _STOPPED
                    break
                if len(self._sender.control.answering()) >= needed:
                    outcome = _BACK
                    break
                time.sleep(_POLL_S)
        outcome = distributed.from_first(outcome)
        if outcome == _STOPPED:
            raise WorkersLost("stopped while waiting for the rollout workers")
        if outcome == _LATE:
            raise WorkersLost(
                f"fewer than rollout.min_workers={needed} rollout workers answered within "
                f"rollout.start_timeout_s={limit:.0f} s"
            )
