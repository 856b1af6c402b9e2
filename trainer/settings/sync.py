"""The weight stream from learner to workers: `sync.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SyncConfig:
    """Settings of the weight stream."""

    host: str = "127.0.0.1"  # where rank 0 listens for the workers; with several nodes, its node's own address instead
    port: int = 0  # 0: a free one
    transport: str = "auto"  # gloo, nccl, or auto: nccl where workers and learner have GPUs of their own
    bucket_mib: float = 32.0
    timeout_s: float = 60.0  # of every wait within a sync
    retries: int = 2  # other attempts after a failed sync, each over a new group
