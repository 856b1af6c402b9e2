"""The rollout workers: `rollout.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class WorkerConfig:
    """Settings of the rollout workers."""

    workers: int = 1  # on each node that generates
    host: str = "127.0.0.1"  # workers listen here alone; with several nodes, each node's own address instead
    base_port: int = 0  # 0: free ports
    tensor_parallel: int = 1
    dtype: str = "auto"  # auto: float32 on a CPU, bfloat16 on a GPU
    max_model_len: int = 2048
    max_sequences: int = 256
    max_batched_tokens: int = 32768  # a prompt in one chunk: on a CPU, seeded sampling does not survive chunks
    kv_cache_mib: int = 512  # on a CPU; a GPU takes its share of memory instead
    gpu_memory_fraction: float = 0.4  # leaves room for a learner on the same card; 0.85 where a worker has its own
    gpus: str = ""  # cards of the workers, comma-separated, tensor_parallel for each; empty: all share what is visible
    threads: int = 2  # CPU threads of a worker
    compile: bool = False
    start_timeout_s: float = 600.0
    max_restarts: int = 3  # of each worker that died or fell silent; then the run goes on without it
    min_workers: int = 1  # over all nodes; with fewer the run stops with a checkpoint
    silence_timeout_s: float = 15.0  # a worker whose engine does not answer for so long is ended and started again
    request_timeout_s: float = 300.0
    max_in_flight: int = 64  # prompts at a time from one learner rank
    retries: int = 2
