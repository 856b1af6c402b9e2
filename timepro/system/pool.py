"""Work shared out over processes that end with this one, whatever happens to it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from timepro.system.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
_FEW = 2  # so many jobs are done sooner than a process imports what it needs
_shared: tuple[Any, ...] = ()


def in_processes(work: Callable[..., Result], jobs: Sequence[Job], workers: int, *shared: Any) -> Iterator[Result]:
    """Results in the order in which they are ready. Processes are spawned, so a script must guard its main module.

    Args:
        work: a function of a module's top level; gets a job and what is shared.
        workers: 1 (or few jobs) does the work here.
        shared: what all jobs need, sent to each process once.
    """
    if workers == 1 or len(jobs) <= _FEW:
        yield from (work(job, *shared) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(shared,))
    try:
        for future in as_completed([pool.submit(_do, work, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start(shared: tuple[Any, ...]) -> None:
    global _shared
    import torch

    end_with_parent(signal.SIGKILL)  # else it would wait for work for ever
    torch.set_num_threads(1)  # a process a core: threads of their own would only fight
    _shared = shared


def _do(work: Callable[..., Result], job: Any) -> Result:
    return work(job, *_shared)
