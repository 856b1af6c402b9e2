"""Node 0's side: what it tells the other nodes to start and end, and what it hears from them."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.table import Table
from torch.distributed import TCPStore

from trainer.launcher.console import console
from trainer.launcher.node_watch import NodeWatch
from trainer.launcher.nodes.link import Link
from trainer.launcher.nodes.meeting import Facts, meet
from trainer.launcher.nodes.node import Node, generating, learning
from trainer.launcher.ranks import RankPlan, affordable_ranks, learner_for
from trainer.settings.experiment import ExperimentConfig

_FAREWELL_S = 30.0
_SETTLE_S = 2.0  # a node whose ranks have failed has said so by then


class NodeLost(RuntimeError):
    """Another node is silent, or has failed."""


class Nodes:
    """The other nodes, as node 0 deals with them; with a single node there are none and everything here is instant.

    A context: leaving it tells all others to end what they run and go.
    """

    def __init__(self, config: ExperimentConfig, node: Node, watch: NodeWatch | None = None) -> None:
        """Wait for the others; raises ValueError where they do not come or were not started alike.

        Args:
            watch: of this node, told what is started here; None: nobody asks.
        """
        self.node, self._config = node, config.nodes
        self.watch = watch or NodeWatch(node.rank, node.count)
        self._link: Link | None = None
        self._store: TCPStore | None = None
        self._facts: dict[int, Facts] = {}
        self._jobs = self._sets = 0
        self._urls: dict[int, list[str]] = {}
        self._lost: dict[int, list[str]] = {}  # of each node, why it has dropped workers
        self._done: set[int] = set()
        self._gone: set[int] = set()
        if node.count > 1:
            console.print(f"[bold]nodes[/]  waiting for {node.count - 1} more at {node.address}:{node.port}")
            self._link, self._facts, self._store = meet(config, node)
            console.print(role_table(self._facts, config))

    def __enter__(self) -> Nodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._link is None:
            return
        self._tell(self._others(range(self.node.count)), {"do": "leave", "failed": str(error) if error else ""})
        self._see_off(_FAREWELL_S)
        self._link.close(5.0)

    def report_to(self, run: Path) -> None:
        """Have every node write what it does into the run's folder."""
        self.watch.report_to(run, anew=True)
        self._tell(self._others(range(self.node.count)), {"do": "watch", "run": str(run.resolve())})

    # --- learner ranks

    def plans(self, config: ExperimentConfig, kind: str, host: str, port: int) -> dict[int, RankPlan]:
        """Every learning node's part of the next job.

        Args:
            kind: "sft" or "grpo".
            host, port: of a store on loopback, for a single node; several meet at the nodes' own.
        """
        if self._link is None:
            count = affordable_ranks(learner_for(kind, config))
            return {0: RankPlan(0, count, count, host, port)}
        self._jobs += 1
        facts = {rank: self._facts[rank] for rank in learning(self._config, self.node.count)}
        counts = {rank: fact.sft_ranks if kind == "sft" else fact.ranks for rank, fact in facts.items()}
        world, first, plans = sum(counts.values()), 0, {}
        for rank, count in counts.items():
            plans[rank] = RankPlan(
                first, count, world, self.node.address, self.node.port, f"job/{self._jobs}", self._facts[rank].address
            )
            first += count
        return plans

    def start_ranks(self, plans: dict[int, RankPlan], kind: str, job: Path) -> None:
        """Have the other nodes start theirs."""
        self._done = set()
        for rank in self._others(plans):
            order = {"do": "start_ranks", "kind": kind, "job": str(job.resolve()), "set": self._sets}
            self._tell([rank], order | {"plan": asdict(plans[rank])})

    def ranks_done(self, plans: dict[int, RankPlan]) -> bool:
        """Whether all ranks of the other nodes have ended well."""
        return self._done >= set(self._others(plans))

    def end_ranks(self, number: int, grace_s: float) -> None:
        """Pass a signal on to all ranks of the other nodes; they are killed after `grace_s`."""
        self._tell(self._others(range(self.node.count)), {"do": "end_ranks", "signal": number, "grace_s": grace_s})

    # --- rollout workers

    def generates_here(self) -> bool:
        return 0 in generating(self._config, self.node.count)

    def worker_token(self, default: str) -> str:
        """The workers' token: a new one for every set of workers, derived by each node for itself."""
        if self._link is None:
            return default
        self._sets += 1
        return derived_token(self.node.token, self._link.session, self._sets)

    def start_workers(self, folder: Path, media: Sequence[Path], logs: Path) -> None:
        """Have the other nodes start theirs."""
        self._urls, self._lost = {}, {}
        order = {"do": "start_workers", "set": self._sets}
        paths = {"folder": str(folder), "media": [str(path) for path in media], "logs": str(logs.resolve())}
        self._tell(self._others(generating(self._config, self.node.count)), order | paths)

    def await_workers(self, timeout_s: float) -> list[str]:
        """The addresses of the other nodes' workers, once all of them serve.

        Raises:
            RuntimeError: a node failed, or is not done in time.
        """
        wanted = set(self._others(generating(self._config, self.node.count)))
        if not self._until(lambda: self._urls.keys() >= wanted, timeout_s):
            raise RuntimeError(
                f"the rollout workers of nodes {sorted(wanted - self._urls.keys())} do not serve after "
                f"rollout.start_timeout_s={timeout_s:.0f} s"
            )
        return [url for rank in sorted(self._urls) for url in self._urls[rank]]

    def lost_workers(self) -> list[str]:
        """Why the other nodes have dropped workers, one text for each."""
        return [f"node {rank} ({self._name(rank)}): {why}" for rank, all_why in self._lost.items() for why in all_why]

    def end_workers(self) -> None:
        """Have the other nodes end theirs."""
        self._tell(self._others(generating(self._config, self.node.count)), {"do": "end_workers"})

    def poll(self) -> None:
        """Take in what the others have said; to be called often.

        Raises:
            NodeLost: one is silent, or failed.
        """
        if self._link is None:
            return
        self._take_in()
        for rank in self._others(range(self.node.count)):
            if rank not in self._gone and (silent := self._link.silence_s(rank)) > self._config.silence_timeout_s:
                raise NodeLost(
                    f"node {rank} ({self._name(rank)}) has said nothing for {silent:.0f} s "
                    f"(nodes.silence_timeout_s={self._config.silence_timeout_s:.0f}); the run ends{self._link.trouble}"
                )

    def explain(self) -> None:
        """Look for another node behind a rank's failure here: a rank notices first when the other end is gone.

        Raises:
            NodeLost: a node is silent, or says itself that it failed.
        """
        if self._link is None:
            return
        failed = time.monotonic()
        others = self._others(range(self.node.count))

        def all_well() -> bool:
            assert self._link is not None
            since = time.monotonic() - failed - _SETTLE_S
            return since > 0 and all(self._link.silence_s(rank) < since for rank in others)

        self._until(all_well, self._config.silence_timeout_s + 2 * _SETTLE_S)

    def _take_in(self) -> None:
        assert self._link is not None
        while (message := self._link.receive()) is not None:
            rank, body = message
            match body["is"]:
                case "workers_up":
                    self._urls[rank] = body["urls"]
                case "ranks_done":
                    self._done.add(rank)
                case "workers_lost":
                    self._lost[rank] = body["why"]
                case "failed":
                    raise NodeLost(f"node {rank} ({self._name(rank)}): {body['why']}")
                case "gone":
                    self._gone.add(rank)

    def _see_off(self, timeout_s: float) -> None:
        """Keep the store up until everybody who still lives has heard why the run ends, and gone."""
        assert self._link is not None
        deadline, limit = time.monotonic() + timeout_s, self._config.silence_timeout_s
        others = self._others(range(self.node.count))
        while time.monotonic() < deadline and any(
            rank not in self._gone and self._link.silence_s(rank) < limit for rank in others
        ):
            with contextlib.suppress(NodeLost, ValueError):  # the run has ended: no news any more
                self._take_in()
            time.sleep(0.1)

    def _until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Poll until something is so; False where it is not within the time. Raises as `poll`."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            if time.monotonic() > deadline:
                return False
            self.poll()
            time.sleep(0.1)
        return True

    def _tell(self, ranks: list[int], body: dict[str, Any]) -> None:
        for rank in ranks:
            assert self._link is not None
            self._link.send(rank, body)

    def _name(self, rank: int) -> str:
        return f"{self._facts[rank].host}, {self._facts[rank].address}"

    def _others(self, ranks: Any) -> list[int]:
        return [rank for rank in ranks if rank]


def derived_token(token: str, session: str, number: int) -> str:
    """The token of the n-th set of workers of a run, so that none travels between the nodes."""
    return hmac.new(token.encode(), f"{session}/workers/{number}".encode(), hashlib.sha256).hexdigest()


def role_table(facts: dict[int, Facts], config: ExperimentConfig) -> Table:
    """Which node does what."""
    table = Table("node", "host", "address", "GPUs", "learner ranks", "rollout workers", box=None, header_style="bold")
    learners, generators = learning(config.nodes, len(facts)), generating(config.nodes, len(facts))
    for rank, fact in sorted(facts.items()):
        ranks = str(fact.ranks) if rank in learners else "-"
        workers = str(config.rollout.workers) if rank in generators else "-"
        table.add_row(str(rank), fact.host, fact.address, str(fact.gpus or "-"), ranks, workers)
    return table
