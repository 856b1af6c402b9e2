"""Which node is which: read from the environment, refused with the variable's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.launcher.nodes.node import Node, check_nodes, generating, learning, read_token
from trainer.settings.nodes import NodesConfig

TOKEN = "0123456789abcdef"


def environment(**changed: str | None) -> dict[str, str]:
    """Node 1 of 2 on this machine, with variables changed or, by None, taken away."""
    variables = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "TIMEPRO_TOKEN": TOKEN} | changed
    return {name: value for name, value in variables.items() if value is not None}


def test_without_variables_a_node_is_alone() -> None:
    assert Node.from_environment({}) == Node()
    assert Node.from_environment({"NNODES": "1", "NODE_RANK": "7"}) == Node()


def test_a_node_knows_its_place() -> None:
    node = Node.from_environment(environment(MASTER_PORT="1234"))
    assert (node.rank, node.count, node.master, node.port, node.address) == (1, 2, "127.0.0.1", 1234, "127.0.0.1")
    assert TOKEN not in repr(node)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"NNODES": "0"}, "NNODES is 0"),
        ({"NNODES": "two"}, "NNODES is 'two'"),
        ({"NODE_RANK": None}, "NODE_RANK not set"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR not set"),
        ({"NODE_RANK": "2"}, "NODE_RANK is 2"),
        ({"NODE_RANK": "-1"}, "NODE_RANK is -1"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000"),
        ({"MASTER_ADDR": "no-such-host.invalid"}, "no-such-host.invalid cannot be resolved"),
        ({"NODE_RANK": "0", "MASTER_ADDR": "192.0.2.7"}, "MASTER_ADDR is 192.0.2.7, which is not an address"),
        ({"TIMEPRO_NODE_ADDRESS": "192.0.2.7"}, "TIMEPRO_NODE_ADDRESS is 192.0.2.7"),
        ({"TIMEPRO_TOKEN": None}, "TIMEPRO_TOKEN"),
        ({"TIMEPRO_TOKEN": "short"}, "at least 16 characters"),
    ],
)
def test_a_wrong_variable_is_named(changed: dict[str, str | None], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Node.from_environment(environment(**changed))


def test_a_name_that_means_loopback_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.launcher.nodes.node.resolve", lambda host: "127.0.1.1")
    with pytest.raises(ValueError, match="MASTER_ADDR=node0 means 127.0.1.1"):
        Node.from_environment(environment(NODE_RANK="0", MASTER_ADDR="node0"))


def test_a_token_file_must_be_private(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    with pytest.raises(ValueError, match=f"others may read {file}"):
        read_token({"TIMEPRO_TOKEN_FILE": str(file)})
    file.chmod(0o600)
    assert read_token({"TIMEPRO_TOKEN_FILE": str(file)}) == TOKEN
    with pytest.raises(ValueError, match="is not a file"):
        read_token({"TIMEPRO_TOKEN_FILE": str(tmp_path)})


@pytest.mark.parametrize(
    ("count", "last", "learners", "generators"),
    [(1, 0, [0], [0]), (2, 0, [0, 1], [0, 1]), (2, 1, [0], [1]), (8, 3, [0, 1, 2, 3, 4], [5, 6, 7])],
)
def test_roles(count: int, last: int, learners: list[int], generators: list[int]) -> None:
    config = NodesConfig(generating=last)
    check_nodes(config, count)
    assert learning(config, count) == learners
    assert generating(config, count) == generators


@pytest.mark.parametrize("last", [-1, 2, 3])
def test_node_0_always_learns(last: int) -> None:
    with pytest.raises(ValueError, match="nodes.generating"):
        check_nodes(NodesConfig(generating=last), 2)


def test_loopback_becomes_the_node_s_address_where_there_are_several() -> None:
    several = Node(1, 2, "10.0.0.1", 29400, "10.0.0.2", TOKEN)
    assert several.reachable("127.0.0.1") == "10.0.0.2"
    assert several.reachable("10.1.0.2") == "10.1.0.2"  # as configured, on a network of its own
    assert Node().reachable("127.0.0.1") == "127.0.0.1"
