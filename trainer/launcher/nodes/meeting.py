"""How the nodes of a run meet: each says what it is, node 0 compares, and all agree on a session or on a refusal."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from rollout import stream
from timepro.config import by_key
from timepro.environment.doctor import version
from timepro.system.device import n_gpus, on_gpu
from trainer.launcher.nodes.link import BadSignature, Link, sign, verify
from trainer.launcher.nodes.node import Node
from trainer.launcher.ranks import affordable_ranks, learner_for
from trainer.launcher.runfolder import changes
from trainer.launcher.stage_keys import digest
from trainer.settings.experiment import ExperimentConfig

_ROOT = Path(__file__).parents[3]
_PACKAGES = ("timepro", "rewards", "rollout", "trainer")
_ALIKE = ("torch", "deepspeed", "vllm", "transformers")
_LATER_S = 5.0
_SEEN_S = 30.0  # network file systems keep what a folder held for some seconds


class NodesDisagree(ValueError):
    """The nodes were not started alike."""


@dataclass(frozen=True)
class Facts:
    """What a node says of itself; `ranks`, `sft_ranks`: how many learner ranks it can start, and how many for SFT."""

    host: str
    address: str
    gpus: int
    ranks: int
    sft_ranks: int
    versions: dict[str, str]
    code: str
    config: dict[str, Any]
    nonce: str

    @classmethod
    def here(cls, config: ExperimentConfig, node: Node) -> Facts:
        """This node's."""
        return cls(
            host=socket.gethostname(),
            address=node.address,
            gpus=n_gpus() if on_gpu() else 0,
            ranks=affordable_ranks(config.learner),
            sft_ranks=affordable_ranks(learner_for("sft", config)),
            versions={name: version(name) for name in _ALIKE},
            code=digest({}, [_ROOT / name for name in _PACKAGES]),
            config=json.loads(json.dumps(by_key(config))),
            nonce=secrets.token_hex(16),
        )

    def difference(self, other: Facts) -> str:
        """Why the two cannot work together; empty where they can."""
        if self.code != other.code:
            return "another version of this code"
        if self.versions != other.versions:
            return f"other packages: {_differing(self.versions, other.versions)}"
        found = [f"{key}={new!r} (node 0: {old!r})" for key, old, new in changes(self.config, other.config)]
        return f"other settings: {', '.join(found)}" if found else ""


def meet(config: ExperimentConfig, node: Node) -> tuple[Link, dict[int, Facts], TCPStore]:
    """Node 0 waits for all others and opens the session.

    Returns:
        its link, what the others said of themselves, and the store that the learner's ranks may meet at, too.

    Raises:
        ValueError: the port cannot be used, not all nodes came in time, or they were not started alike.
    """
    store = stream.host_store(node.address, node.port, config.nodes.join_timeout_s)
    mine, others = Facts.here(config, node), range(1, node.count)
    try:
        facts = _await(store, node, config.nodes.join_timeout_s)
        for rank, theirs in facts.items():
            if difference := mine.difference(theirs):
                raise NodesDisagree(f"node {rank} ({theirs.host}, {theirs.address}) was started with {difference}")
    except ValueError as error:
        store.set("session", sign(node.token, "", "session", {"refused": str(error)}))
        time.sleep(1.0)  # for the others to read it
        raise
    token_file = Path(config.runs).resolve() / f".nodes-{mine.nonce}"
    token_file.parent.mkdir(parents=True, exist_ok=True)
    token_file.touch()
    try:
        nonces = [mine.nonce, *(facts[rank].nonce for rank in others)]
        opening = {"nonces": nonces, "file": str(token_file)}
        store.set("session", sign(node.token, "", "session", opening))
        session = _session(nonces)
        _await_all_see(store, node, session, config.nodes.join_timeout_s)
    finally:
        token_file.unlink(missing_ok=True)
    link = Link(stream.join_store(node.address, node.port, 60.0), 0, others, node.token, session)
    return link, {0: mine, **facts}, store


def join(config: ExperimentConfig, node: Node) -> Link:
    """Another node goes to node 0.

    Raises:
        ValueError: node 0 is not there, has another token, or refuses; or its runs folder is not visible here.
    """
    where, limit = f"{node.master}:{node.port}", config.nodes.join_timeout_s
    try:
        store = stream.join_store(node.master, node.port, limit)
    except RuntimeError as error:
        raise ValueError(
            f"node 0 did not answer at {where} within nodes.join_timeout_s={limit:.0f} s; is it running there "
            f"(NODE_RANK=0), and does a firewall keep this node from it?"
        ) from error
    if store.add(f"claimed/{node.rank}", 1) > 1:
        raise ValueError(f"another node has come as NODE_RANK={node.rank}; give every node a number of its own")
    mine = Facts.here(config, node)
    key = f"hello/{node.rank}"
    store.set(key, sign(node.token, "", key, asdict(mine)))
    try:
        store.wait(["session"], timedelta(seconds=limit + _LATER_S))  # node 0 may have begun to wait later
        opening = verify(node.token, "", "session", store.get("session"))
    except BadSignature as error:
        raise ValueError(f"node 0 ({where}) has another token; give all nodes the same one") from error
    except RuntimeError as error:
        raise ValueError(f"node 0 ({where}) did not open the run within {limit:.0f} s; see what it says") from error
    if refused := opening.get("refused"):
        raise NodesDisagree(f"node 0 refused to start: {refused}")
    if opening["nonces"][node.rank] != mine.nonce:
        raise ValueError(f"node 0 ({where}) opened the run with another node {node.rank}; start all nodes anew")
    session = _session(opening["nonces"])
    seen = _appears(Path(opening["file"]))
    key = f"sees/{node.rank}"
    store.set(key, sign(node.token, session, key, {"seen": seen}))
    if not seen:
        raise ValueError(_unseen(node.rank, str(Path(opening["file"]).parent)))
    return Link(store, node.rank, [0], node.token, session)


def _await(store: TCPStore, node: Node, limit_s: float) -> dict[int, Facts]:
    """The others' facts, once all have come."""
    deadline, facts = time.monotonic() + limit_s, {}
    while missing := [rank for rank in range(1, node.count) if rank not in facts]:
        for rank in missing:
            if store.check([key := f"hello/{rank}"]):
                try:
                    facts[rank] = Facts(**verify(node.token, "", key, store.get(key)))
                except BadSignature as error:
                    raise ValueError(f"node {rank} has another token; give all nodes the same one") from error
        if time.monotonic() > deadline:
            names = ", ".join(str(rank) for rank in missing if rank not in facts)
            raise ValueError(
                f"of {node.count} nodes these have not come to {node.address}:{node.port} within "
                f"nodes.join_timeout_s={limit_s:.0f} s: {names}; start the same command there with NODE_RANK set, "
                f"MASTER_ADDR={node.address} MASTER_PORT={node.port}"
            )
        time.sleep(0.1)
    return facts


def _await_all_see(store: TCPStore, node: Node, session: str, limit_s: float) -> None:
    for rank in range(1, node.count):
        key = f"sees/{rank}"
        try:
            store.wait([key], timedelta(seconds=min(limit_s, 2 * _SEEN_S)))
        except RuntimeError as error:
            raise ValueError(f"node {rank} came and then fell silent; see what it says") from error
        if not verify(node.token, session, key, store.get(key))["seen"]:
            raise ValueError(_unseen(rank, "the runs folder"))


def _unseen(rank: int, folder: str) -> str:
    return (
        f"node {rank} does not see {folder} of node 0; the nodes need one file system for runs and data, at the same "
        "path on all of them (runs=FOLDER)"
    )


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + _SEEN_S
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _session(nonces: list[str]) -> str:
    return hashlib.sha256("".join(nonces).encode()).hexdigest()


def _differing(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    names = [name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)]
    return ", ".join(f"{name} {theirs.get(name)} (node 0: {mine.get(name)})" for name in sorted(names))
