"""The rollout workers: `rollout.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from timepro.config.marks import Count, Natural, Port, Positive, between
from timepro.system import device

ADAPTERS_KEY = "timepro_adapters"  # of vLLM's additional configuration
KEEP_WEIGHTS_KEY = "timepro_keep_weights"  # as well
DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass
class WorkerConfig:
    """Settings of the rollout workers."""

    workers: Count = 1  # on each node that generates
    host: str = "127.0.0.1"  # workers listen here alone; with several nodes, each node's own address instead
    base_port: Port = 0  # 0: free ports
    tensor_parallel: Count = 1
    dtype: str = "auto"  # auto: float32 on a CPU, bfloat16 on a GPU
    max_model_len: Count = 2048
    max_sequences: Count = 256
    clips_per_prompt: Count = 1  # at most; the learner's prompts have one, `evaluation.conditions` may ask with two
    max_batched_tokens: Count = 32768  # a prompt in one chunk: on a CPU, seeded sampling does not survive chunks
    kv_cache_mib: Count = 512  # on a CPU; a GPU takes its share of memory instead
    # Leaves room for a learner on the same card; 0.85 where a worker has its own.
    gpu_memory_fraction: Annotated[float, between(0.01, 1)] = 0.4
    gpus: str = ""  # cards of the workers, comma-separated, tensor_parallel for each; empty: all share what is visible
    threads: Count = 2  # CPU threads of a worker
    compile: bool = False
    # A seed a group, so that a resumed or repeated run gets the same answers. false: vLLM's fast sampler, and answers
    # depend on the order in which requests reach a worker.
    seeded: bool = True
    start_timeout_s: Positive = 600.0
    max_restarts: Natural = 3  # of each worker that died or fell silent; then the run goes on without it
    min_workers: Count = 1  # over all nodes; with fewer the run stops with a checkpoint
    silence_timeout_s: Positive = 15.0  # a worker whose engine does not answer for so long is ended and started again
    request_timeout_s: Positive = 300.0
    max_in_flight: Count = 64  # prompts at a time from one learner rank
    retries: Natural = 2

    @property
    def resolved_dtype(self) -> str:
        """Of the workers' weights."""
        return self.dtype if self.dtype != "auto" else ("bfloat16" if device.on_gpu() else "float32")

    def check(self) -> None:
        """Raises ValueError for a dtype that the workers do not know."""
        if self.dtype not in DTYPES:
            raise ValueError(f"rollout.dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class AdapterShape:
    """The LoRA adapters that a worker makes room for when it starts."""

    rank: int
    targets: tuple[str, ...]  # published names of linear layers, "q_proj" for example


def worker_gpus(config: WorkerConfig, index: int) -> str:
    """The cards of one worker: its part of `gpus`, or all of them where they are just enough for one worker.

    Raises:
        ValueError: a number of cards that the workers cannot share out.
    """
    cards, each = [card.strip() for card in config.gpus.split(",") if card.strip()], config.tensor_parallel
    if len(cards) == each:
        return ",".join(cards)
    if len(cards) != config.workers * each:
        raise ValueError(
            f"rollout.gpus names {len(cards)} cards, but {config.workers} workers of tensor_parallel={each} need "
            f"{config.workers * each}, or {each} to share; name as many"
        )
    return ",".join(cards[index * each : (index + 1) * each])
