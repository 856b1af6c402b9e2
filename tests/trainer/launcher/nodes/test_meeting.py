"""Nodes meeting over loopback: they come together, or every one is told why not."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timepro.config import load_experiment
from timepro.system.network import free_port
from trainer.launcher.nodes import meeting
from trainer.launcher.nodes.meeting import join, meet
from trainer.launcher.nodes.node import Node
from trainer.settings.experiment import ExperimentConfig

TOKEN = "0123456789abcdef"
EXPERIMENTS = Path(__file__).resolve().parents[4] / "experiments"


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    overrides = [f"runs={tmp_path}", "nodes.join_timeout_s=8"]
    return load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)


@pytest.fixture
def head() -> Node:
    return Node(0, 2, "127.0.0.1", free_port("127.0.0.1"), "127.0.0.1", TOKEN)


def together(head: tuple[ExperimentConfig, Node], *others: tuple[ExperimentConfig, Node]) -> list[Any]:
    """What each node got: its result, or its error."""
    results: list[Any] = [None] * (1 + len(others))

    def run(place: int, work: Any, config: ExperimentConfig, node: Node) -> None:
        try:
            results[place] = work(config, node)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            results[place] = error

    threads = [threading.Thread(target=run, args=(0, meet, *head), daemon=True)]
    threads += [threading.Thread(target=run, args=(n, join, *other), daemon=True) for n, other in enumerate(others, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a node still waits"
    return results


def test_nodes_meet_and_share_a_session(config: ExperimentConfig, head: Node) -> None:
    (link, facts, _), other = together((config, head), (config, replace(head, rank=1)))
    try:
        assert link.session == other.session
        assert facts[0].code == facts[1].code
        assert not list(Path(config.runs).glob(".nodes-*")), "the sign that both see one folder stays behind"
    finally:
        link.close(5)
        other.close(5)


def test_other_settings_are_named_on_both_sides(config: ExperimentConfig, head: Node) -> None:
    other = replace(config, seed=7)
    for error in together((config, head), (other, replace(head, rank=1))):
        assert isinstance(error, ValueError)
        assert "seed=7 (node 0: 0)" in str(error)
        assert "node 1" in str(error)


def test_another_token_is_refused(config: ExperimentConfig, head: Node) -> None:
    first, second = together((config, head), (config, replace(head, rank=1, token="fedcba9876543210")))
    assert "node 1 has another token" in str(first)
    assert "another token" in str(second)


def test_who_is_missing_is_said(config: ExperimentConfig, head: Node) -> None:
    config.nodes.join_timeout_s = 2.0
    first, second = together((config, replace(head, count=4)), (config, replace(head, rank=2, count=4)))
    assert "have not come to 127.0.0.1" in str(first) and ": 1, 3;" in str(first)
    assert isinstance(second, ValueError) and "1, 3" in str(second)


def test_a_number_is_given_once(config: ExperimentConfig, head: Node) -> None:
    first, *others = together((config, head), *[(config, replace(head, rank=1))] * 2)
    refused = [other for other in others if isinstance(other, ValueError)]
    assert len(refused) == 1 and "NODE_RANK=1" in str(refused[0])
    first[0].close(5)
    next(other for other in others if other not in refused).close(5)


def test_node_0_that_is_not_there_is_said(config: ExperimentConfig, head: Node) -> None:
    config.nodes.join_timeout_s = 2.0
    with pytest.raises(ValueError, match="node 0 did not answer at 127.0.0.1:"):
        join(config, replace(head, rank=1))


def test_a_runs_folder_that_others_do_not_see_is_refused(
    config: ExperimentConfig, head: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "_appears", lambda path: False)  # as on another file system
    for error in together((config, head), (config, replace(head, rank=1))):
        assert "node 1 does not see" in str(error) and "runs=FOLDER" in str(error)


def test_other_code_and_other_packages_are_named(config: ExperimentConfig, head: Node) -> None:
    mine = meeting.Facts.here(config, head)
    assert mine.difference(mine) == ""
    assert "another version of this code" in mine.difference(replace(mine, code="x"))
    theirs = replace(mine, versions=mine.versions | {"torch": "0.1"})
    assert f"torch 0.1 (node 0: {mine.versions['torch']})" in mine.difference(theirs)


def test_a_setting_that_differs_is_named_by_its_key(config: ExperimentConfig, head: Node) -> None:
    mine = meeting.Facts.here(config, head)
    theirs = meeting.Facts.here(replace(config, lora=replace(config.lora, continue_=True)), head)
    assert "lora.continue=True (node 0: False)" in mine.difference(theirs)
