"""The learner ranks of one node: started together, told where to meet all others, ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from rollout.auth import TOKEN_VARIABLE
from timepro.system import guard
from timepro.system.device import environment_for_tensors, n_gpus, on_gpu
from timepro.system.network import interface_of, is_loopback
from timepro.system.processes import group_alive, log_tail
from trainer import messages
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.learner import LearnerConfig


@dataclass(frozen=True)
class RankPlan:
    """One node's part of a job.

    Args:
        first, count, world: the numbers of its ranks, and how many all nodes have.
        host, port, prefix: the store that all of them meet at, and their part of it.
        address: this node's, which its ranks listen on.
    """

    first: int
    count: int
    world: int
    host: str
    port: int
    prefix: str = "learner"
    address: str = "127.0.0.1"


def learner_for(kind: str, config: ExperimentConfig) -> LearnerConfig:
    """The settings of a job's ranks.

    SFT takes the workers' cards, too, which stand idle while it runs (`sft.every_card`). What it computes does not
    depend on the number of ranks.

    Args:
        kind: of the job, "sft" or "grpo".
    """
    learner, cards = config.learner, f"{config.learner.gpus},{config.rollout.gpus}"
    named = bool(config.learner.gpus and config.rollout.gpus)
    if kind != "sft" or not config.sft.every_card or not named or not on_gpu():
        return learner
    every = list(dict.fromkeys(card.strip() for card in cards.split(",") if card.strip()))
    return replace(learner, ranks=len(every), gpus=",".join(every))


def affordable_ranks(config: LearnerConfig) -> int:
    """Learner ranks to start here: at most one a GPU, since NCCL takes no two on one card. Says when it is fewer."""
    if not on_gpu():
        return config.ranks
    cards = len(config.gpus.split(",")) if config.gpus else n_gpus()
    if config.ranks > cards:
        print(f"  learner.ranks={config.ranks}, but there are {cards} GPU(s): running {cards} rank(s)", file=sys.stderr)
    return min(config.ranks, cards)


def start_ranks(plan: RankPlan, config: LearnerConfig, job: Path, token: str) -> list[subprocess.Popen[bytes]]:
    """Start a node's ranks; if one does not start, none is left.

    Args:
        token: of the rollout workers.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for local in range(plan.count):
            ranks.append(_start(plan, local, config, job, token))
    except BaseException:  # also a signal between two starts: what runs already must not stay behind
        end_ranks(ranks, signal.SIGKILL, 0.0)
        raise
    return ranks


class RankWatch:
    """Looks after a node's running ranks.

    A rank that hangs in a collective ends with it (`zero.collective_timeout_s`). One that something has stopped would
    leave the others hanging for as long, so its state is looked at here.

    Args:
        ranks: those of this node.
        work: the folder of the ranks' logs.
        silence_timeout_s: how long a rank may be stopped.
    """

    def __init__(
        self, ranks: Sequence[subprocess.Popen[bytes]], plan: RankPlan, work: Path, silence_timeout_s: float
    ) -> None:
        self._ranks, self._plan, self._work, self._limit_s = ranks, plan, work, silence_timeout_s
        self._stopped_since: dict[int, float] = {}

    def failure(self) -> str:
        """Which rank has ended badly or stands still, and its last words; empty while all is well."""
        # A rank that was killed takes others down with it, who may be gone just as early: it is named first.
        for local, process in sorted(enumerate(self._ranks), key=lambda item: item[1].poll() != -signal.SIGKILL):
            code, rank = process.poll(), self._plan.first + local
            stopped_s = self._stopped_s(process.pid) if code is None else 0.0
            if code in (None, 0) and stopped_s <= self._limit_s:
                continue
            if code is None:
                why = f"has been stopped for {stopped_s:.0f} s (learner.silence_timeout_s={self._limit_s:g})"
            else:
                why = f"ended with exit code {code}"
            tail = log_tail(self._work / f"learner-{rank}.log") if rank else "see the lines above"
            return f"learner rank {rank} {why}; the others are ended too.\n{tail}"
        return ""

    def _stopped_s(self, pid: int) -> float:
        """For how long it has been seen stopped (SIGSTOP; not by a debugger)."""
        try:
            stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            stopped = False
        if not stopped:
            self._stopped_since.pop(pid, None)
            return 0.0
        return time.monotonic() - self._stopped_since.setdefault(pid, time.monotonic())


def end_ranks(ranks: Sequence[subprocess.Popen[bytes]], number: int, grace_s: float) -> None:
    """Ask processes to end, wait for at most `grace_s`, then kill what is left of their process groups."""
    for process in ranks:
        if process.poll() is None:
            process.send_signal(number)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(process.poll() is None for process in ranks):
        time.sleep(0.1)
    for process in ranks:
        if group_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        guard.release(process.pid)


def _start(plan: RankPlan, local: int, config: LearnerConfig, job: Path, token: str) -> subprocess.Popen[bytes]:
    rank = plan.first + local
    environment = environment_for_tensors() | {
        messages.RANK: str(rank),
        messages.WORLD_SIZE: str(plan.world),
        messages.LOCAL_RANK: str(local),
        messages.STORE_HOST: plan.host,
        messages.STORE_PORT: str(plan.port),
        messages.STORE_PREFIX: plan.prefix,
        messages.ADDRESS: plan.address,
        TOKEN_VARIABLE: token,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
    }
    if on_gpu():
        # Some number: without one torch 2.11 was seen to change its own while it compiled attention, and stop there.
        threads = max(config.threads, (os.cpu_count() or 1) // plan.count)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        if config.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = config.gpus
    else:
        environment |= {"OMP_NUM_THREADS": str(config.threads), "DS_ACCELERATOR": "cpu"}
        if is_loopback(plan.address):
            environment["GLOO_SOCKET_IFNAME"] = "lo"
    if not is_loopback(plan.address):  # else both look for one on their own, and may take one that nobody reaches
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            environment.setdefault(name, interface_of(plan.address))
    log = job.parent / f"learner-{rank}.log"
    command = [sys.executable, "-m", "trainer.learner.rank", str(job)]
    # Rank 0 speaks to the terminal; the others' words are kept for when something fails. A session of its own, so
    # that a Ctrl-C reaches the launcher alone, which passes it on once.
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
            stdout=sink, stderr=None if rank == 0 else sink,
        )  # fmt: skip
    guard.protect(process.pid)
    return process
