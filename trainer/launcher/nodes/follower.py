"""The other nodes' side: do what node 0 says, watch what was started, end all of it when node 0 is gone."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.launcher.console import console
from trainer.launcher.node_watch import NodeWatch
from trainer.launcher.nodes.head import derived_token
from trainer.launcher.nodes.link import Link
from trainer.launcher.nodes.meeting import join
from trainer.launcher.nodes.node import Node
from trainer.launcher.ranks import RankPlan, RankWatch, end_ranks, learner_for, start_ranks
from trainer.launcher.signals import Interrupted, signals_raise
from trainer.launcher.workers import WorkerSet
from trainer.settings.experiment import ExperimentConfig

_STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}


def follow(config: ExperimentConfig, node: Node) -> None:
    """Serve a run that node 0 leads, until it says that the run is over.

    Raises:
        ValueError: the nodes could not meet.
        RuntimeError: the run failed, here or elsewhere.
        Interrupted: a signal came; what ran here has ended.
    """
    console.print(f"[bold]nodes[/]  node {node.rank} of {node.count} goes to node 0 at {node.master}:{node.port}")
    with signals_raise():
        link = join(config, node)
        console.print(f"[bold]nodes[/]  node {node.rank} follows; what its parts say is in the run's folder")
        watch = NodeWatch(node.rank, node.count)
        follower = Follower(config, node, link, watch)
        try:
            with watch:
                follower.run()
        except Interrupted as stop:
            follower.end(stop.number, config.learner.stop_timeout_s)
            link.send(0, {"is": "failed", "why": f"stopped by {stop}"})
            raise
        except Exception as error:
            follower.end(signal.SIGKILL, 0.0)
            link.send(0, {"is": "failed", "why": str(error)})
            raise
        finally:
            follower.end(signal.SIGKILL, 0.0)
            link.send(0, {"is": "gone"})
            link.close(2.0)


class Follower:
    """What runs on this node, and the loop that tends it."""

    def __init__(self, config: ExperimentConfig, node: Node, link: Link, watch: NodeWatch) -> None:
        self._config, self._node, self._link, self._node_watch = config, node, link, watch
        self._workers: WorkerSet | None = None
        self._announced = False
        self._ranks: list[subprocess.Popen[bytes]] = []
        self._watch: RankWatch | None = None

    def run(self) -> None:
        """Until node 0 says "leave".

        Raises:
            RuntimeError: node 0 is gone, or failed.
        """
        while True:
            silent, limit = self._link.silence_s(0), self._config.nodes.silence_timeout_s
            if silent > limit:
                raise RuntimeError(
                    f"node 0 ({self._node.master}) has said nothing for {silent:.0f} s (nodes.silence_timeout_s="
                    f"{limit:.0f}); what ran here is ended, and --resume on all nodes continues the run"
                    f"{self._link.trouble}"
                )
            while (message := self._link.receive()) is not None:
                body = message[1]
                if body["do"] == "leave":
                    if body["failed"]:
                        raise RuntimeError(f"node 0 ended the run: {body['failed']}")
                    return
                self._obey(body)
            self._tend_workers()
            self._tend_ranks()
            time.sleep(0.1)

    def end(self, number: int, grace_s: float) -> None:
        """End everything here; safe to call again."""
        end_ranks(self._ranks, number, grace_s)
        self._ranks = []
        if self._workers is not None:
            self._workers.end()
            self._workers = None

    def _obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "watch":
                self._node_watch.report_to(Path(order["run"]))
            case "start_workers":
                rollout = replace(self._config.rollout, host=self._node.reachable(self._config.rollout.host))
                self._announced = False
                self._workers = WorkerSet(
                    rollout, Path(order["folder"]), [Path(path) for path in order["media"]], Path(order["logs"]),
                    derived_token(self._node.token, self._link.session, order["set"]), f"{self._node.rank}-",
                    self._config.lora.shape, self._config.data.feature_cache.place(self._config.runs),
                    self._config.profile.folder(Path(order["logs"]).parent),
                    self._config.sends_deltas,
                )  # fmt: skip
                self._node_watch.workers = self._workers
            case "end_workers":
                if self._workers is not None:
                    self._workers.end()
                self._workers = self._node_watch.workers = None
            case "start_ranks":
                plan, job = RankPlan(**order["plan"]), Path(order["job"])
                token = derived_token(self._node.token, self._link.session, order["set"])
                self._ranks = start_ranks(plan, learner_for(order["kind"], self._config), job, token)
                self._node_watch.ranks(plan.first, self._ranks)
                self._watch = RankWatch(self._ranks, plan, job.parent, self._config.learner.silence_timeout_s)
            case "end_ranks":
                end_ranks(self._ranks, order["signal"], order["grace_s"])
                self._ranks = []

    def _tend_workers(self) -> None:
        if self._workers is None:
            return
        if not self._announced:
            self._announced = self._workers.ready()
            if self._announced:
                self._link.send(0, {"is": "workers_up", "urls": self._workers.urls})
            return
        known = len(self._workers.lost)
        self._workers.tend()
        if len(self._workers.lost) > known:  # node 0 counts who is left on all nodes
            self._link.send(0, {"is": "workers_lost", "why": self._workers.lost})

    def _tend_ranks(self) -> None:
        if not self._ranks or self._watch is None:
            return
        codes = {process.poll() for process in self._ranks}
        if codes & _STOPPED:
            return  # the ranks have agreed to stop; node 0 has heard it from its own and says how it goes on
        if failure := self._watch.failure():
            raise RuntimeError(failure)
        if codes == {0}:
            self._ranks = []
            self._node_watch.ranks(0, [])
            self._link.send(0, {"is": "ranks_done"})
