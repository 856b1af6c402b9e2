"""Which node of a run this machine is: `NNODES`, `NODE_RANK`, `MASTER_ADDR`, `MASTER_PORT`, and the nodes' token."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from timepro.hints import command
from timepro.system.network import address_towards, is_loopback, own_addresses, resolve
from trainer.settings.nodes import NodesConfig

TOKEN, TOKEN_FILE = "TIMEPRO_TOKEN", "TIMEPRO_TOKEN_FILE"
_PORT = 29400
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Node:
    """This machine's place in the run; by default it is alone.

    Args:
        rank, count: its number, and of how many.
        master, port: where node 0 waits for the others.
        address: where the others reach this one.
    """

    rank: int = 0
    count: int = 1
    master: str = "127.0.0.1"
    port: int = 0
    address: str = "127.0.0.1"
    token: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Node:
        """Read the variables.

        Raises:
            ValueError: one of them is missing or wrong; the message says which, and what to set.
        """
        count = node_count(environment)
        if count == 1:
            return cls()
        missing = [name for name in ("NODE_RANK", "MASTER_ADDR") if not environment.get(name)]
        if missing:
            raise ValueError(
                f"NNODES is {count}, but {' and '.join(missing)} not set; every node needs its number, 0 to "
                f"{count - 1}, and node 0's address: NNODES={count} NODE_RANK=... MASTER_ADDR=... "
                f"{command('train ...')}"
            )
        rank, port = _number(environment, "NODE_RANK", 0), _number(environment, "MASTER_PORT", _PORT)
        if not 0 <= rank < count:
            raise ValueError(f"NODE_RANK is {rank}; with NNODES={count} it must be 0 to {count - 1}")
        if not 0 < port < 65536:
            raise ValueError(f"MASTER_PORT is {port}; it must be 1 to 65535")
        master = resolve(environment["MASTER_ADDR"])
        if is_loopback(master) and not is_loopback(environment["MASTER_ADDR"]):  # as Debian's /etc/hosts has it
            raise ValueError(
                f"MASTER_ADDR={environment['MASTER_ADDR']} means {master} on this machine, where no other node reaches "
                "it; give node 0's IP address"
            )
        address = environment.get("TIMEPRO_NODE_ADDRESS") or (master if rank == 0 else address_towards(master))
        for name, host in (("MASTER_ADDR", master), ("TIMEPRO_NODE_ADDRESS", address)):
            if (rank == 0 or name != "MASTER_ADDR") and not is_loopback(host) and host not in own_addresses():
                raise ValueError(
                    f"{name} is {host}, which is not an address of this node (NODE_RANK={rank}); it has "
                    f"{', '.join(sorted(own_addresses()))}"
                )
        return cls(rank, count, master, port, address, read_token(environment))

    def reachable(self, host: str) -> str:
        """The address to listen on where `host` is configured: with several nodes, loopback becomes this node's own."""
        return self.address if self.count > 1 and is_loopback(host) else host


def node_count(environment: Mapping[str, str] = os.environ) -> int:
    """How many nodes there are; raises ValueError where `NNODES` is not a number above 0."""
    count = _number(environment, "NNODES", 1)
    if count < 1:
        raise ValueError(f"NNODES is {count}; it must be at least 1")
    return count


def learning(config: NodesConfig, count: int) -> list[int]:
    """The nodes with learner ranks; node 0 is always one of them."""
    return list(range(count - config.generating))


def generating(config: NodesConfig, count: int) -> list[int]:
    """The nodes with rollout workers."""
    return list(range(count - config.generating if config.generating else 0, count))


def check_nodes(config: NodesConfig, count: int) -> None:
    """Raises ValueError where there are too few nodes for the roles."""
    if not 0 <= config.generating < count and config.generating:
        raise ValueError(
            f"nodes.generating is {config.generating}, but there {'is 1 node' if count == 1 else f'are {count} nodes'} "
            f"(NNODES) and node 0 learns; start it on more nodes, or set nodes.generating=0: every node does both"
        )


def read_token(environment: Mapping[str, str]) -> str:
    """The secret that the nodes of a run share.

    Raises:
        ValueError: there is none, it is too short, or others may read its file.
    """
    token, path = environment.get(TOKEN, ""), environment.get(TOKEN_FILE, "")
    if path and not token:
        file = Path(path)
        if not file.is_file():
            raise ValueError(f"{TOKEN_FILE} names {path}, which is not a file")
        if file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise ValueError(f"others may read {path} ({TOKEN_FILE}); chmod 600 {path}")
        token = file.read_text(encoding="utf-8").strip()
    if len(token) < _SHORTEST_TOKEN:
        raise ValueError(
            f"a run over several nodes listens beyond this machine, so it needs a token of at least {_SHORTEST_TOKEN} "
            f"characters, the same on every node: set {TOKEN}, or {TOKEN_FILE} to a file that only you may read "
            f"(openssl rand -hex 32 makes one)"
        )
    return token


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; it must be a whole number") from None
