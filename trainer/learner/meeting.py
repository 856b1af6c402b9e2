"""Where rank 0 and the workers meet: who answers, and a process group of those that do. Rank 0 alone.

The group has the workers whose engine answers before a sync; the others are left out, and join again when they answer.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from rollout import stream
from rollout.control import WorkerControl, WorkerState
from trainer.learner import distributed
from trainer.settings.sync import SyncConfig


class Meeting:
    """A process group of rank 0 and workers.

    Args:
        urls: all workers that there may be.
        device: where the stream's buffers lie.
        adapters: whether the stream brings adapters, or whole weights.
        min_workers: it does not take place with fewer of them.

    Attributes:
        group: None until workers have come, and after a failure.
        members: the workers in the group.
        version: of the weights that all of their processes have; None where they differ or are not known.
    """

    def __init__(
        self,
        urls: Sequence[str],
        control: WorkerControl,
        config: SyncConfig,
        device: torch.device,
        adapters: bool,
        min_workers: int,
    ) -> None:
        self._urls, self._config, self._min_workers = list(urls), config, min_workers
        self._device, self._adapters = device, adapters
        self.control = control
        self.group: Any = None
        self.members: list[str] = []
        self.version: int | None = None
        self._store: Any = None
        self._prefix = ""

    def connect(self) -> None:
        """Make sure that all workers that answer are in one group, and know what they have.

        Raises:
            RuntimeError: too few workers answer, or one did not come within the deadline.
        """
        answering = self.control.answering()
        self._report_changes(list(answering))
        if len(answering) < self._min_workers:
            raise RuntimeError(
                f"{len(answering)} of {len(self._urls)} rollout workers answer, fewer than "
                f"rollout.min_workers={self._min_workers}"
            )
        states = [state for of_worker in answering.values() for state in of_worker]
        together = all(state.group == self._prefix for state in states)
        if self.group is None or not together or list(answering) != self.members:
            self.abort()
            self.members = list(answering)
            self._join(answering)
            self.version = None  # some are new, or may have missed something
            return
        versions = {state.version for state in states}
        self.version = versions.pop() if len(versions) == 1 else None

    def abort(self) -> None:
        """End the group, whatever its members are doing."""
        group, self.group = self.group, None
        if group is not None:
            group.abort()

    def close(self) -> None:
        """Leave the group and release the meeting point."""
        self.abort()
        self._store = None

    def _join(self, answering: Mapping[str, Sequence[WorkerState]]) -> None:
        config, host = self._config, distributed.own_address(self._config.host)
        if self._store is None:
            self._store = stream.host_store(host, config.port, config.timeout_s)
        prefix, world = f"weights/{uuid.uuid4().hex}", 1 + sum(len(states) for states in answering.values())
        places: dict[int, str] = {}
        joining: list[Future[Any]] = []
        for url, states in answering.items():
            first = 1 + len(places)
            places |= dict.fromkeys(range(first, first + len(states)), url)
            info = {
                "host": host,
                "port": self._store.port,
                "prefix": prefix,
                "first_rank": first,
                "world_size": world,
                "timeout_s": config.timeout_s,
                "bucket_bytes": int(config.bucket_mib * 2**20),
                "adapters": self._adapters,
                "device": self._device.type,
            }
            joining.append(self.control.begin(url, "init_weight_transfer_engine", {"init_info": info}))

        def check() -> None:
            for future in joining:
                if future.done():
                    future.result()

        try:
            self.group = stream.join_group(self._store, prefix, 0, world, config.timeout_s, self._device, check)
        except stream.PeersMissing as missing:
            absent = ", ".join(dict.fromkeys(places[rank] for rank in missing.ranks))
            raise RuntimeError(f"{absent} did not join within sync.timeout_s={config.timeout_s:g} s") from None
        for future in joining:
            future.result(timeout=config.timeout_s)
        self._prefix = prefix

    def _report_changes(self, answering: list[str]) -> None:
        """Say who has gone or come back since the last group was made."""
        before = self.members or self._urls
        for urls, words in (
            ([url for url in before if url not in answering], "does not answer; going on without it"),
            ([url for url in answering if url not in before], "is back"),
        ):
            for url in urls:
                count = f"{len(answering)} of {len(self._urls)} rollout workers"
                print(f"\n  rollout worker {url} {words} ({count})", file=sys.stderr, flush=True)
