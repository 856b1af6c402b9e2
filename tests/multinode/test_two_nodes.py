"""One run over two network namespaces with an address each: a learner rank and a worker on both sides.

Needs root and `ip` (Linux network namespaces). `make test-multinode` runs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import miniature

pytestmark = [pytest.mark.multinode, pytest.mark.e2e, pytest.mark.slow]

SPACES = ("timepro-a", "timepro-b")
ADDRESSES = ("10.177.0.1", "10.177.0.2")
SILENCE_S = 8
SETTINGS = [
    "name=two",
    "learner.ranks=1",
    "rollout.threads=1",
    "data.sft_clips=24",
    "data.rl_clips=12",
    "data.test_clips=8",
    "sft.max_steps=4",
    "sft.encoder_warmup.steps=2",
    "grpo.mask_truncated=false",
    "grpo.max_steps=60",
    "grpo.groups.prompts_per_step=6",
    "grpo.checkpoints.save_every=1",
    "rewards=easy_rewards:share_of_times",
    "nodes.join_timeout_s=90",
    f"nodes.silence_timeout_s={SILENCE_S}",
]


def ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True, timeout=20).stdout


@dataclass
class Cable:
    """The two namespaces and what joins them."""

    def set(self, state: str) -> None:
        ip("-n", SPACES[0], "link", "set", "timepro0", state)

    def processes(self) -> list[str]:
        """What still runs in the namespaces."""
        return [pid for space in SPACES for pid in ip("netns", "pids", space).split()]


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    for space in SPACES:
        ip("netns", "del", space, check=False)
    try:
        for space in SPACES:
            ip("netns", "add", space)
        ip("link", "add", "timepro0", "type", "veth", "peer", "name", "timepro1")
        for number, (space, address) in enumerate(zip(SPACES, ADDRESSES, strict=True)):
            ip("link", "set", f"timepro{number}", "netns", space)
            ip("-n", space, "addr", "add", f"{address}/24", "dev", f"timepro{number}")
            ip("-n", space, "link", "set", f"timepro{number}", "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield Cable()
    finally:
        for space in SPACES:
            for pid in ip("netns", "pids", space, check=False).split():
                os.kill(int(pid), signal.SIGKILL)
            ip("netns", "del", space, check=False)


class Pair:
    """The launchers of both nodes."""

    def __init__(self, runs: Path, log: str, *extra: str, each: tuple[list[str], list[str]] = ([], [])) -> None:
        self.logs = [runs / f"{log}-{node}.log" for node in range(2)]
        self.launchers = []
        for node in (1, 0):
            more = {
                "NNODES": "2", "NODE_RANK": str(node), "MASTER_ADDR": ADDRESSES[0],
                "TIMEPRO_TOKEN": "a token for the tests alone",
            }  # fmt: skip
            train = miniature.command(*SETTINGS, f"runs={runs}", *extra, *each[node])
            with self.logs[node].open("wb") as sink:
                self.launchers.insert(
                    0,
                    subprocess.Popen(
                        ["ip", "netns", "exec", SPACES[node], *train], cwd=miniature.ROOT,
                        env=miniature.environment(more=more), stdout=sink, stderr=subprocess.STDOUT,
                        start_new_session=True,
                    ),
                )  # fmt: skip

    def said(self, node: int) -> str:
        return self.logs[node].read_text(errors="replace")

    def wait(self, limit_s: float) -> list[int]:
        """Both exit codes; everything is ended, and the test failed, where one takes too long."""
        deadline = time.monotonic() + limit_s
        try:
            return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.launchers]
        except subprocess.TimeoutExpired:
            for process in self.launchers:
                process.kill()
            pytest.fail(f"still running after {limit_s} s:\n{self.said(0)[-3000:]}\n--- node 1\n{self.said(1)[-2000:]}")


def steps_done(run: Path) -> int:
    metrics = run / "metrics.grpo.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


def until(reached: Callable[[], bool], pair: Pair, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        alive = all(process.poll() is None for process in pair.launchers)
        if not alive or time.monotonic() > deadline:
            pytest.fail(f"not reached:\n{pair.said(0)[-3000:]}\n--- node 1\n{pair.said(1)[-2000:]}")
        time.sleep(0.1)


def no_process_left(cable: Cable) -> None:
    deadline = time.monotonic() + 10
    while cable.processes():
        assert time.monotonic() < deadline, f"still there: {cable.processes()}"
        time.sleep(0.2)


def test_a_run_over_two_nodes_survives_their_faults(cable: Cable, tmp_path: Path) -> None:
    """Node 1 dies, then the network; each ends the run in time and in clear words; --resume finishes it."""
    run = tmp_path / "two"

    pair = Pair(tmp_path, "first")
    until(lambda: steps_done(run) >= 3, pair, 300)
    pair.launchers[1].kill()
    codes = pair.wait(SILENCE_S + 40)
    assert codes[0] == 1
    assert re.search(r"node 1 \(.*10\.177\.0\.2\) has said nothing for", pair.said(0)), pair.said(0)[-2000:]
    no_process_left(cable)

    before = steps_done(run)
    pair = Pair(tmp_path, "second", "--resume")
    until(lambda: steps_done(run) >= before + 3, pair, 300)
    cable.set("down")
    codes = pair.wait(SILENCE_S + 60)
    assert codes == [1, 1]
    assert "node 1 (" in pair.said(0) and "has said nothing for" in pair.said(0), pair.said(0)[-2000:]
    no_process_left(cable)
    cable.set("up")

    done = steps_done(run)
    pair = Pair(tmp_path, "third", "--resume", f"grpo.max_steps={done + 4}")
    assert pair.wait(300) == [0, 0], pair.said(0)[-3000:] + pair.said(1)[-3000:]
    no_process_left(cable)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["eval"]["grpo"]["n"] == 8
    assert summary["sync"]["checksum_failures"] == 0
    metrics = [json.loads(line) for line in (run / "metrics.grpo.jsonl").read_text().splitlines()]
    key = "sampling/importance_sampling_ratio/max"
    ratios = [m[key] for m in metrics if key in m]
    assert ratios and ratios == pytest.approx([1.0] * len(ratios), abs=1e-4)
    assert (run / "learner-1.log").is_file() and (run / "logs" / "worker-1-0.log").is_file()


def test_nodes_started_unlike_each_other_end_before_anything_runs(cable: Cable, tmp_path: Path) -> None:
    pair = Pair(tmp_path, "unlike", each=([], ["seed=5"]))
    assert pair.wait(120) == [2, 2]
    for node in range(2):
        assert "node 1 (" in pair.said(node) and "seed=5 (node 0: 0)" in pair.said(node)
    assert not (tmp_path / "two").exists()
    no_process_left(cable)
