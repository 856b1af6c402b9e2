"""One rollout worker for a checkpoint on this machine, for as long as a block of code needs answers."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rollout.client import RolloutPool
from rollout.settings import WorkerConfig
from rollout.worker import Worker, worker_command, worker_environment
from timepro.feature_cache import CachePlace
from timepro.system.network import free_port


@contextmanager
def serving(
    folder: Path, media: Sequence[Path], config: WorkerConfig, features: CachePlace | None = None
) -> Iterator[RolloutPool]:
    """Start a worker, give a client of it, and end both with the block. Its log is kept where the block fails.

    Args:
        folder: checkpoint folder.
        media: audio below these folders may be given by path.
        features: where its features are kept; None: nowhere.

    Raises:
        RuntimeError: the worker did not start, with the end of its log and the log's place.
    """
    logs = Path(tempfile.mkdtemp(prefix="timepro-worker-"))
    token, port = secrets.token_urlsafe(32), free_port(config.host)
    worker = Worker(
        "0",
        worker_command(config, folder.resolve(), port),
        worker_environment(config, token, media=media, features=features),
        f"http://{config.host}:{port}",
        logs / "worker.log",
        title="the vLLM worker",
    )
    try:
        worker.wait_ready(config.start_timeout_s)
        pool = RolloutPool.of(config, [worker.url], token)
        try:
            yield pool
        finally:
            pool.close()
    finally:
        worker.end()
    shutil.rmtree(logs)
