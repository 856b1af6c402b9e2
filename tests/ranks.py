"""Learner ranks without a launcher: a program that every rank runs over gloo on loopback, and leaves as a rank does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from rollout import stream
from trainer.messages import LOCAL_RANK, RANK, STORE_HOST, STORE_PORT, WORLD_SIZE

ROOT = Path(__file__).resolve().parents[1]
# An ordinary exit takes the interpreter down beside gloo's threads, which now and then ends in SIGABRT.
LEAVE = "\nfrom trainer.learner import distributed\ndistributed.leave(0)\n"


@dataclass(frozen=True)
class Ended:
    """A rank that has ended: what it wrote to its standard output and error, and its exit code."""

    out: str
    log: str
    exit_code: int


def run_ranks(program: str, *arguments: object, ranks: int = 2, timeout_s: float = 420.0) -> list[str]:
    """What each rank wrote to its standard output. As `ended_ranks`.

    Raises:
        AssertionError: a rank failed or did not end in time; with the end of what it wrote.
    """
    ended = ended_ranks(program, *arguments, ranks=ranks, timeout_s=timeout_s)
    for rank, one in enumerate(ended):
        assert one.exit_code == 0, f"rank {rank} ended with {one.exit_code}:\n{one.log[-3000:]}"
    return [one.out for one in ended]


def ended_ranks(program: str, *arguments: object, ranks: int = 2, timeout_s: float = 420.0) -> list[Ended]:
    """Run a program on several ranks; one that has not ended in time is killed.

    Args:
        program: Python that calls `distributed.join` with a deadline well under `timeout_s`.
        arguments: its `sys.argv[1:]`.
    """
    store = stream.host_store("127.0.0.1", 0, 60.0)
    shared = {
        WORLD_SIZE: str(ranks), STORE_HOST: "127.0.0.1", STORE_PORT: str(store.port), "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu", "TIMEPRO_DEVICE": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }  # fmt: skip
    command = [sys.executable, "-c", program + LEAVE, *map(str, arguments)]
    with ExitStack() as files:
        started = []
        for rank in range(ranks):
            out, log = (files.enter_context(TemporaryFile("w+")) for _ in range(2))
            own = os.environ | shared | {RANK: str(rank), LOCAL_RANK: str(rank)}
            started.append((subprocess.Popen(command, env=own, cwd=ROOT, stdout=out, stderr=log), out, log))
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and any(process.poll() is None for process, _, _ in started):
            time.sleep(0.1)
        for process, _, _ in started:
            process.kill()
            process.wait()
        for _, out, log in started:
            out.seek(0)
            log.seek(0)
        return [Ended(out.read(), log.read(), process.returncode) for process, out, log in started]
