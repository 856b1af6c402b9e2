"""The weight stream from learner to workers: `sync.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Natural, Port, Positive, Share

TRANSPORTS = ("auto", "gloo", "nccl")


@dataclass
class SyncConfig:
    """Settings of the weight stream."""

    host: str = "127.0.0.1"  # where rank 0 listens for the workers; with several nodes, its node's own address instead
    port: Port = 0  # 0: a free one
    transport: str = "auto"  # gloo, nccl, or auto: nccl where workers and learner have GPUs of their own
    bucket_mib: Positive = 32.0
    timeout_s: Positive = 60.0  # of every wait within a sync
    retries: Natural = 2  # other attempts after a failed sync, each over a new group
    min_arrived: Share = 0.5  # least share of training's change that the workers must have; 1 where both round alike

    def check(self) -> None:
        """Raises ValueError for an unknown transport."""
        if self.transport not in TRANSPORTS:
            raise ValueError(f"sync.transport is {self.transport!r}; it must be auto, gloo or nccl")
