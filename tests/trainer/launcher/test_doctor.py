"""`timepro doctor`: what it finds on a machine that is well, and what where something is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from timepro.config import load_experiment
from timepro.system.network import free_port
from trainer.launcher.doctor import Finding, _clock, examine
from trainer.launcher.nodes.node import Node
from trainer.settings.experiment import ExperimentConfig

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    return load_experiment("sed_grpo", [f"runs={tmp_path / 'runs'}"], ExperimentConfig, ROOT / "experiments")


def found(config: ExperimentConfig, node: Node | None = None) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(config, node or Node())}


def test_a_machine_that_is_well(config: ExperimentConfig) -> None:
    findings = found(config)
    assert [f for f in findings.values() if f.state == "fail"] == []
    assert list(Path(config.runs).iterdir()) == [], "it leaves files behind"


def test_what_would_fail_is_named(config: ExperimentConfig, tmp_path: Path) -> None:
    config.grpo.groups.group_size = 1
    assert "grpo.groups.group_size is 1" in found(config)["settings"].found
    taken = socket.create_server(("127.0.0.1", 0))
    config.rollout.base_port = taken.getsockname()[1]
    with taken:
        assert found(config)["ports"].state == "fail"
        assert str(config.rollout.base_port) in found(config)["ports"].found
    (tmp_path / "file").write_text("")
    config.runs = str(tmp_path / "file" / "runs")
    assert found(config)["runs folder"].state == "fail"


def test_an_address_of_another_machine_is_named(config: ExperimentConfig) -> None:
    elsewhere = Node(0, 2, "192.0.2.7", 29400, "192.0.2.7", "0123456789abcdef")
    assert "192.0.2.7 is not an address of this machine" in found(config, elsewhere)["network"].found


def test_interface_that_the_environment_overrides_is_noted(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert "GLOO_SOCKET_IFNAME=eth7" in found(config)["network"].found


def test_clocks_apart_are_noted() -> None:
    assert _clock(time.time()).state == "ok"
    assert "60 s behind" in _clock(time.time() - 60).found
    assert "60 s ahead of" in _clock(time.time() + 60).found


def command(runs: Path, node: int, port: int, *more: str) -> subprocess.Popen[str]:
    variables: Mapping[str, str] = {
        "NNODES": "2", "NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TIMEPRO_TOKEN": "0123456789abcdef",
    }  # fmt: skip
    code = (
        "import sys; from pathlib import Path; from timepro.config import load_experiment; "
        "from trainer.launcher.doctor import doctor, print_findings; from trainer.launcher.nodes.node import Node; "
        "from trainer.settings.experiment import ExperimentConfig\n"
        f"config = load_experiment('sed_grpo', {[f'runs={runs}', *more]!r}, ExperimentConfig, Path('experiments'))\n"
        "try: found = doctor(config, Node.from_environment())\n"
        "except ValueError as error: print(error); sys.exit(2)\n"
        "print_findings(found)\n"
        "sys.exit(any(one.state == 'fail' for findings in found.values() for one in findings))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_node_0_tells_of_all_nodes(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    first, second = (command(tmp_path / "runs", node, port) for node in range(2))
    said = first.communicate(timeout=120)[0]
    second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), said
    rows = [line.split() for line in said.splitlines()]
    assert {row[0] for row in rows if "clock" in row} == {"1"}
    assert {row[0] for row in rows if "ports" in row} == {"0", "1"}


def test_a_lone_node_says_who_is_missing(tmp_path: Path) -> None:
    alone = command(tmp_path / "runs", 0, free_port("127.0.0.1"), "nodes.join_timeout_s=1")
    said = alone.communicate(timeout=120)[0]
    assert alone.returncode == 2
    assert "of 2 nodes these have not come" in said and ": 1;" in said
