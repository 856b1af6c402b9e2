"""Going on when a rollout worker dies: its launcher starts it again, the learner brings it the current weights.

Nothing of a step is kept before all of its groups are there, so a step that lost a worker asks for its groups once
more. Seeds depend on the sample, so they are the same groups, and each is trained on once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import requests

from rollout.client import WorkerError
from rollout.settings import WorkerConfig
from trainer.learner import distributed
from trainer.learner.sender import SyncError, SyncReport, WeightSender

T = TypeVar("T")
_POLL_S = 0.5
_BACK, _LATE, _STOPPED = 0.0, 1.0, 2.0


class WorkersLost(RuntimeError):
    """The workers did not come back, or the run was asked to stop while it waited for them."""


class Recovery:
    """What a run does about failing workers. All methods but the constructor are collectives.

    Args:
        urls: the workers'.
        stop: tells whether the run shall stop instead of waiting.
    """

    def __init__(
        self, sender: WeightSender, urls: list[str], config: WorkerConfig, stop: distributed.StopRequest
    ) -> None:
        self._sender, self._urls, self._config, self._stop = sender, list(urls), config, stop
        self.count = 0

    def attempt(self, work: Callable[[], T], version: int) -> T:
        """The result of `work`, which asks the workers; again after they have come back, should any rank's have failed.

        Args:
            work: called on every rank; raises WorkerError where the workers failed.
            version: the weights to bring them to.

        Raises:
            WorkersLost: they did not come back in time, or failed more often than they may be restarted.
        """
        error = ""
        for _ in range(self._attempts()):
            error, result = "", None
            try:
                result = work()
            except WorkerError as failure:
                error = str(failure)
            if not distributed.largest([bool(error)])[0]:
                return result  # type: ignore[return-value]  # no error: `work` has returned
            self._recover(error, version)
        raise WorkersLost(
            f"the rollout workers failed in {self._attempts()} attempts: {error or 'see the other ranks'}"
        )

    def deliver(self, version: int) -> SyncReport:
        """Bring the workers to `version`, restarted ones too.

        Raises:
            WorkersLost: as `attempt`.
        """
        try:
            return self._sender.deliver(version)
        except SyncError as failure:
            return self._recover(str(failure), version)

    def _attempts(self) -> int:
        return self._config.max_restarts * len(self._urls) + 1

    def _recover(self, error: str, version: int) -> SyncReport:
        """Wait until all workers serve, then bring them to `version`."""
        for _ in range(self._attempts()):
            self.count += 1
            if distributed.rank() == 0:
                print(f"  waiting for the rollout workers: {error[:300]}", file=sys.stderr, flush=True)
            began = time.monotonic()
            self._wait()
            try:
                self._sender.connect()
                report = self._sender.deliver(version)
            except SyncError as failure:
                error = str(failure)
                continue
            if distributed.rank() == 0:
                spent = time.monotonic() - began
                print(f"  all workers have weights {version} again, {spent:.1f} s later", file=sys.stderr, flush=True)
            return report
        raise WorkersLost(f"the rollout workers could not be brought to weights {version}: {error}")

    def _wait(self) -> None:
        """Rank 0 asks the workers whether they serve; the others wait for its word."""
        outcome, limit = _LATE, self._config.start_timeout_s
        if distributed.rank() == 0:
            deadline = time.monotonic() + limit
            while time.monotonic() < deadline:
                if self._stop.signal:
                    outcome = _STOPPED
                    break
                if all(map(_serves, self._urls)):
                    outcome = _BACK
                    break
                time.sleep(_POLL_S)
        outcome = distributed.from_first([outcome])[0]
        if outcome == _STOPPED:
            raise WorkersLost("stopped while waiting for the rollout workers")
        if outcome == _LATE:
            raise WorkersLost(f"the rollout workers did not serve again within rollout.start_timeout_s={limit:.0f} s")


def _serves(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=2).status_code == 200
    except requests.RequestException:
        return False
