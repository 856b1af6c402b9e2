"""A job of the learner: its ranks started on all nodes, watched beside the workers, and ended together."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from rollout import stream
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.ranks import RankPlan, RankWatch, end_ranks, learner_for, start_ranks
from trainer.launcher.signals import Interrupted
from trainer.launcher.workers import Fleet, TooFewWorkers
from trainer.messages import JobSpec
from trainer.settings.experiment import ExperimentConfig


def run_learner(job: JobSpec, config: ExperimentConfig, workers: Fleet | None, nodes: Nodes) -> None:
    """Run a job on all learner ranks of all nodes and wait for its end.

    Raises:
        RuntimeError: a rank, a worker or a node failed; everything started here has ended by then.
        Interrupted: a signal came; the ranks have saved a checkpoint, or their time for it was over.
    """
    work, grace_s = Path(job.work), config.learner.stop_timeout_s
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"job.{job.kind}.json"
    job.save(path)
    store = stream.host_store("127.0.0.1", 0, config.learner.start_timeout_s)
    plans = nodes.plans(config, job.kind, "127.0.0.1", store.port)
    nodes.watch.job(job)
    nodes.start_ranks(plans, job.kind, path)
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        token = workers.token if workers is not None else ""
        ranks += start_ranks(plans[0], learner_for(job.kind, config), path, token)
        nodes.watch.ranks(plans[0].first, ranks)
        watch = RankWatch(ranks, plans[0], work, config.learner.silence_timeout_s)
        _watch(ranks, plans, workers, nodes, watch)
    except Interrupted as stop:
        print("\n  stopping: the learner saves a checkpoint", file=sys.stderr, flush=True)
        nodes.end_ranks(stop.number, grace_s)
        end_ranks(ranks, stop.number, grace_s)
        raise
    except TooFewWorkers as failure:
        print(f"\n  stopping: {failure}", file=sys.stderr, flush=True)
        print("  the learner saves a checkpoint", file=sys.stderr, flush=True)
        nodes.end_ranks(signal.SIGTERM, grace_s)
        end_ranks(ranks, signal.SIGTERM, grace_s)
        raise
    finally:
        if any(process.poll() != 0 for process in ranks):
            nodes.end_ranks(signal.SIGTERM, 5.0)
        end_ranks(ranks, signal.SIGTERM, 5.0)
        del store


def _watch(
    ranks: list[subprocess.Popen[bytes]],
    plans: dict[int, RankPlan],
    workers: Fleet | None,
    nodes: Nodes,
    watch: RankWatch,
) -> None:
    while not (all(process.poll() == 0 for process in ranks) and nodes.ranks_done(plans)):
        if failure := watch.failure():
            nodes.explain()
            raise RuntimeError(failure)
        if workers is not None:
            workers.tend()
        nodes.poll()
        time.sleep(0.1)
