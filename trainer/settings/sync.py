"""The weight stream from learner to workers: `sync.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Natural, Port, Positive, Share

TRANSPORTS = ("auto", "gloo", "nccl")
MODES = ("auto", "dense", "delta", "adapters")


@dataclass
class SyncConfig:
    """Settings of the weight stream."""

    # What is sent: all weights (dense), the numbers that have changed (delta), or adapters. auto: adapters with
    # lora.rank, else delta for bfloat16, and dense for float32, where a step changes every number. A delta follows only
    # where all workers have the version before it: the first stream, and the one after any failure, is dense.
    mode: str = "auto"
    host: str = "127.0.0.1"  # where rank 0 listens for the workers; with several nodes, its node's own address instead
    port: Port = 0  # 0: a free one
    transport: str = "auto"  # gloo, nccl, or auto: nccl where workers and learner have GPUs of their own
    bucket_mib: Positive = 32.0
    timeout_s: Positive = 60.0  # of every wait within a sync
    retries: Natural = 2  # other attempts after a failed sync, each over a new group
    min_arrived: Share = 0.5  # least share of training's change that the workers must have; 1 where both round alike

    def check(self) -> None:
        """Raises ValueError for an unknown transport or mode."""
        if self.transport not in TRANSPORTS:
            raise ValueError(f"sync.transport is {self.transport!r}; it must be auto, gloo or nccl")
        if self.mode not in MODES:
            raise ValueError(f"sync.mode is {self.mode!r}; it must be one of {', '.join(MODES)}")

    def resolved_mode(self, adapters: bool, dtype: str) -> str:
        """dense, delta or adapters.

        Args:
            adapters: whether the learner trains adapters alone.
            dtype: of the weights that it trains.

        Raises:
            ValueError: a mode that does not go with what is trained.
        """
        self.check()
        if self.mode == "auto":
            return "adapters" if adapters else "delta" if dtype == "bfloat16" else "dense"
        if adapters and self.mode != "adapters":
            raise ValueError(
                f"sync.mode={self.mode} sends whole weights, which the workers of a run with lora.rank above 0 do not "
                "take: they keep the base and get adapters; set sync.mode=auto, or lora.rank=0"
            )
        if self.mode == "adapters" and not adapters:
            raise ValueError("sync.mode=adapters, but lora.rank=0 trains all weights; set sync.mode=auto, or lora.rank")
        return self.mode
