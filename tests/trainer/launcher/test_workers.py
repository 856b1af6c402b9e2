"""Rollout workers that fail again and again: dropped, and the run goes on with the others. Stand-ins in their place."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from rollout.settings import WorkerConfig
from timepro.feature_cache import FEATURES_VARIABLE, CachePlace
from trainer.launcher import workers as launcher
from trainer.launcher.node_watch import NodeWatch
from trainer.launcher.nodes.follower import Follower
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.launcher.workers import Fleet, TooFewWorkers, WorkerSet
from trainer.settings.experiment import ExperimentConfig

# Serves what the launcher asks for; ends at once where the file `broken` is.
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

if Path(sys.argv[2], "broken").exists():
    raise SystemExit("the card is gone")

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
"""


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Each worker gets a folder of its own: `worker-0`, `worker-1`."""
    made = []

    def command(config, folder, port, adapters=None, profile=None, name="0", deltas=False):
        own = tmp_path / f"worker-{len(made)}"
        own.mkdir()
        made.append(own)
        return [sys.executable, "-S", "-c", SERVER, str(port), str(own)]

    monkeypatch.setattr(launcher, "worker_command", command)
    monkeypatch.setattr(launcher, "_HEALTH_EVERY_S", 0.1)
    return made


def breaks(worker, folder):
    (folder / "broken").touch()
    worker.process.kill()


def tend(tended, until, limit_s=30.0):
    deadline = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < deadline, "tended in vain"
        tended.tend()
        time.sleep(0.02)


@pytest.fixture
def fleet(stand_ins, tmp_path):
    fleets = []

    def _fleet(**settings):
        config = ExperimentConfig()
        config.rollout = WorkerConfig(**{"workers": 2, "max_restarts": 2, **settings})
        fleets.append(Fleet(config, tmp_path, [tmp_path], tmp_path / "logs", Nodes(config, Node())))
        fleets[-1].wait()
        return fleets[-1]

    yield _fleet
    for one in fleets:
        one.end()


def test_a_worker_that_stays_broken_is_dropped_and_the_others_go_on(fleet, stand_ins, capfd):
    one = fleet()
    here = one._here
    broken, well = list(here.workers)
    pid = well.process.pid
    breaks(broken, stand_ins[0])
    tend(one, lambda: here.lost)
    assert here.workers == [well] and well.process.pid == pid
    said = capfd.readouterr().err
    assert said.count("rollout worker 0 ended (exit code") == 3
    assert said.count("starting it again") == 2
    assert "has been started again 2 times already (rollout.max_restarts); it is given up. Its log: " in said
    assert "the card is gone" in here.lost[0]
    for _ in range(10):
        one.tend()  # the run goes on
    assert len(one.urls) == 2  # the learner asks both, and goes on with who answers


def test_a_worker_that_comes_back_is_kept(fleet, stand_ins):
    one = fleet()
    worker = one._here.workers[0]
    worker.process.kill()
    tend(one, lambda: worker.restarts == 1)
    tend(one, worker.answers)
    assert one._here.lost == [] and len(one._here.workers) == 2


def test_a_worker_that_served_for_long_has_all_its_restarts_again(fleet, monkeypatch):
    one = fleet(max_restarts=1, start_timeout_s=1.0)
    monkeypatch.setattr(launcher, "_WELL_S", 1.0)
    worker = one._here.workers[0]
    for _ in range(3):
        process = worker.process
        process.kill()
        tend(one, lambda p=process, w=worker: w.process is not p)
        tend(one, worker.answers)
        worker.started -= 2.0
    assert one._here.lost == []


def test_workers_of_every_node_are_told_where_features_are_kept(fleet, stand_ins, tmp_path):
    config = ExperimentConfig(runs=str(tmp_path / "runs"))
    expected = CachePlace(str(tmp_path / "runs" / "cache" / "features"), 4.0)
    assert config.data.feature_cache.place(config.runs) == expected
    mine = fleet()._here.workers
    link = RecordingLink()
    link.session = "session"
    follower = Follower(config, Node(), link, NodeWatch())
    order = {"do": "start_workers", "set": 1, "folder": str(tmp_path), "media": [], "logs": str(tmp_path / "logs")}
    follower._obey(order)
    try:
        theirs = follower._workers.workers
        told = [json.loads(worker._environment[FEATURES_VARIABLE]) for worker in (*mine, *theirs)]
    finally:
        follower.end(9, 0.0)
    assert told[-1] == asdict(expected)
    assert told[0] == asdict(ExperimentConfig().data.feature_cache.place("runs"))
    assert Path(told[0]["folder"]) == Path("runs/cache/features").resolve()  # wherever the worker runs


def test_too_few_workers_end_the_run_with_every_reason(fleet, stand_ins):
    one = fleet(max_restarts=0, min_workers=2)
    breaks(one._here.workers[1], stand_ins[1])
    words = r"1 of 2 rollout workers are left, rollout\.min_workers is 2:\nrollout worker 1 ended"
    with pytest.raises(TooFewWorkers, match=words):
        tend(one, lambda: False)


class RecordingLink:
    """In a link's place: what was sent, and what comes in."""

    def __init__(self, *messages) -> None:
        self.sent, self.messages, self.trouble = [], list(messages), ""

    def send(self, rank, body):
        self.sent.append((rank, body))

    def receive(self):
        return self.messages.pop(0) if self.messages else None

    def silence_s(self, rank):
        return 0.0


def test_a_follower_tells_node_0_whom_it_has_dropped(stand_ins, tmp_path):
    config, link = ExperimentConfig(), RecordingLink()
    follower = Follower(config, Node(), link, NodeWatch())
    settings = WorkerConfig(workers=2, max_restarts=0)
    follower._workers = WorkerSet(settings, tmp_path, [tmp_path], tmp_path / "logs", label="1-")
    try:
        tend_workers = SimpleNamespace(tend=follower._tend_workers)
        tend(tend_workers, lambda: follower._announced)
        breaks(follower._workers.workers[0], stand_ins[0])
        tend(tend_workers, lambda: len(link.sent) > 1)
        for _ in range(5):
            follower._tend_workers()
    finally:
        follower.end(9, 0.0)
    (_, up), (_, lost) = link.sent
    assert up["is"] == "workers_up" and len(up["urls"]) == 2
    assert lost["is"] == "workers_lost" and len(lost["why"]) == 1 and "rollout worker 1-0 ended" in lost["why"][0]


def test_workers_of_all_nodes_count(fleet, stand_ins):
    """Node 1 had three workers, of which two are lost; two more are here."""
    one = fleet(max_restarts=0, min_workers=3)
    nodes = one._nodes
    nodes._link = RecordingLink((1, {"is": "workers_lost", "why": ["worker 1-0 ended", "worker 1-2 ended"]}))
    nodes._facts = {1: SimpleNamespace(host="second", address="10.0.0.2")}
    one.urls += ["http://node-1:1", "http://node-1:2", "http://node-1:3"]
    nodes._take_in()
    one.tend()  # three of five are left
    breaks(one._here.workers[0], stand_ins[0])
    with pytest.raises(TooFewWorkers, match=r"2 of 5 rollout workers are left(.|\n)*node 1 .*: worker 1-2 ended"):
        tend(one, lambda: False)
    nodes._link = None
