"""`timepro doctor`: whether a run could start on this machine, or on several, before any model is loaded."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.table import Table
from rich.text import Text

from timepro.hints import tool
from timepro.system.device import n_gpus, on_gpu
from timepro.system.network import interface_of, listening_socket, require_free
from timepro.tables import print_table
from trainer.launcher.checks import check
from trainer.launcher.console import console
from trainer.launcher.nodes.head import role_table
from trainer.launcher.nodes.meeting import join, meet
from trainer.launcher.nodes.node import Node, generating, learning
from trainer.launcher.plan.fit import as_typed, nearest
from trainer.launcher.plan.machine import this_machine
from trainer.launcher.plan.plan import plan_of
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.wandb import wandb_mode

_SPARE_DISK_GIB, _SPARE_SHARED_GIB, _CLOCKS_APART_S = 5.0, 1.0, 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: the thing.
        state: "ok"; "note" where a run works, but somebody should know; "fail" where it would not.
        found: what was found and, where it is not well, what to do.
    """

    what: str
    state: str
    found: str


def examine(config: ExperimentConfig, node: Node) -> list[Finding]:
    """Look at everything that a run of `config` needs of this machine."""
    checks: list[tuple[str, Callable[[ExperimentConfig, Node], tuple[str, str]]]] = [
        ("settings", _settings), ("machine", _machine), ("GPUs", _cards), ("memory", _memory),
        ("shared memory", _shared_memory), ("runs folder", _runs_folder),
        ("network", _network), ("ports", _ports), ("W&B", _tracking),
    ]  # fmt: skip
    findings = []
    for what, look in checks:
        try:
            findings.append(Finding(what, *look(config, node)))
        except (ValueError, OSError) as error:
            findings.append(Finding(what, "fail", str(error)))
    return findings


def doctor(config: ExperimentConfig, node: Node) -> dict[int, list[Finding]]:
    """Examine this machine, or with several nodes all of them.

    Returns:
        by node what was found: on node 0 of all of them, on another one its own.

    Raises:
        ValueError: the nodes could not meet.
    """
    mine = examine(config, node)
    if node.count == 1:
        return {0: mine}
    if node.rank:
        link = join(config, node)
        link.send(0, {"is": "examined", "findings": [asdict(f) for f in mine], "clock": time.time()})
        link.close(config.nodes.silence_timeout_s)
        return {node.rank: mine}
    link, facts, store = meet(config, node)
    console.print(role_table(facts, config))
    found, deadline = {0: mine}, time.monotonic() + config.nodes.silence_timeout_s
    while len(found) < node.count:
        if time.monotonic() > deadline:
            raise ValueError(f"nodes {sorted(set(range(node.count)) - found.keys())} came and then fell silent")
        message = link.receive()
        if message is None:
            time.sleep(0.05)
            continue
        rank, body = message
        found[rank] = [*(Finding(**f) for f in body["findings"]), _clock(body["clock"])]
    link.close(5.0)
    time.sleep(1.0)  # for the others to leave the store before it goes
    del store
    return found


def print_findings(found: dict[int, list[Finding]], form: str = "text") -> None:
    """A table of what was found, node by node."""
    table = Table("node", "what", "", "found", box=None, header_style="bold")
    colours = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "fail": "[red]fail[/]"}
    for rank, findings in sorted(found.items()):
        for finding in findings:
            table.add_row(str(rank), finding.what, colours[finding.state], Text(finding.found))
    print_table(table, form)


def _settings(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    check(config, node.count)
    return "ok", f"{config.name}: no contradiction"


def _machine(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory()
    ranks = config.learner.ranks * config.learner.threads if node.rank in learning(config.nodes, node.count) else 0
    found = (
        f"{platform.system()} {platform.release()}, {cores} cores, {memory.total / 2**30:.0f} GiB of memory, "
        f"{memory.available / 2**30:.0f} GiB of it free"
    )
    if not on_gpu() and ranks > cores:
        return "note", f"{found}; learner.ranks x learner.threads={ranks} is more than there are cores"
    return "ok", found


def _cards(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    named = {"learner.gpus": config.learner.gpus, "rollout.gpus": config.rollout.gpus}
    if not on_gpu():
        wanted = [f"{key}={cards}" for key, cards in named.items() if cards]
        if wanted and os.environ.get("TIMEPRO_DEVICE", "").lower() != "cpu":
            return "fail", f"none, but {' and '.join(wanted)}: run it where there are cards, or set both to nothing"
        return "ok", "none; everything runs on the CPU"
    count = n_gpus()
    roles = {"learner.gpus": learning(config.nodes, node.count), "rollout.gpus": generating(config.nodes, node.count)}
    for key, cards in named.items():
        wrong = [c for c in cards.split(",") if c.strip().isdigit() and int(c) >= count]
        if wrong and node.rank in roles[key]:
            return "fail", f"{key} names {', '.join(wrong)}, but there are {count} GPUs: 0 to {count - 1}"
    return "ok", f"{count}; learner: {config.learner.gpus or 'all'}, workers: {config.rollout.gpus or 'all'}"


def _memory(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    memory = psutil.virtual_memory()
    machine = this_machine(node.count, memory.total / 2**30)
    plan = plan_of(config, machine)
    role = "node" if "node" in plan.host_gib else (
        "learning node" if node.rank in learning(config.nodes, node.count) else "generating node"
    )  # fmt: skip
    wanted = plan.host_gib[role]
    said = (
        f"{plan.architecture.parameters / 1e6:,.1f} million parameters: {plan.rank.total / 2**30:.1f} GiB a rank and "
        f"{plan.worker.total / 2**30:.1f} a worker, {wanted:.1f} GiB of main memory in all"
    )
    if problems := plan.problems_of(role):
        change = nearest(config, machine)
        would = f"; these settings fit: {' '.join(as_typed(change))}" if change else ""
        return "fail", f"{said}; but {'; '.join(problems)}{would}"
    if wanted > memory.available / 2**30:
        return "note", f"{said}; only {memory.available / 2**30:.1f} GiB are free now"
    return "ok", said


def _shared_memory(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    free = shutil.disk_usage("/dev/shm").free / 2**30
    if free < _SPARE_SHARED_GIB:
        return "note", f"{free:.2f} GiB free in /dev/shm; NCCL and vLLM want more (docker run --shm-size)"
    return "ok", f"{free:.1f} GiB free in /dev/shm"


def _runs_folder(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    folder = Path(config.runs).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as scratch:
        with (Path(scratch) / "a").open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # stages of concurrent runs rely on it
        os.replace(file.name, Path(scratch) / "b")
    free = shutil.disk_usage(folder).free / 2**30
    if free < _SPARE_DISK_GIB:
        return "note", f"{folder}: {free:.1f} GiB free; checkpoints of a large model need more (runs=FOLDER)"
    return "ok", f"{folder}: writable, locks work, {free:.0f} GiB free"


def _network(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    interface = interface_of(node.address)
    listener = listening_socket(node.address)
    try:
        with socket.create_connection((node.address, listener.getsockname()[1]), timeout=5):
            pass
    finally:
        listener.close()
    others = [
        f"{name}={os.environ[name]}"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        if os.environ.get(name, interface) != interface
    ]
    if others:
        return "note", f"{node.address} is on {interface}, but {', '.join(others)} is set and will be used"
    return "ok", f"{node.address} on {interface}"


def _ports(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    wanted = []
    if config.rollout.base_port and node.rank in generating(config.nodes, node.count):
        wanted += [config.rollout.base_port + index for index in range(config.rollout.workers)]
        for port in wanted:
            require_free(node.reachable(config.rollout.host), port)
    if config.sync.port and node.rank == 0:
        listening_socket(node.reachable(config.sync.host), config.sync.port).close()
        wanted.append(config.sync.port)
    return "ok", f"{', '.join(map(str, wanted))} free" if wanted else "free ones are taken as they come"


def _tracking(config: ExperimentConfig, node: Node) -> tuple[str, str]:
    mode = wandb_mode(config.wandb)
    return "ok", f"{mode}; {tool('wandb')} login makes it online" if mode == "offline" else mode


def _clock(theirs: float) -> Finding:
    apart = time.time() - theirs
    if abs(apart) > _CLOCKS_APART_S:
        return Finding("clock", "note", f"{abs(apart):.0f} s {'behind' if apart > 0 else 'ahead of'} node 0's; set it")
    return Finding("clock", "ok", "with node 0's to a second or so")
