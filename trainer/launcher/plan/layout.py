"""Which ranks and workers are on which card of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rollout.settings import worker_gpus
from trainer.launcher.nodes.node import generating, learning
from trainer.settings.experiment import ExperimentConfig

_SHARED = 0.4  # a worker's share of a card that it has not alone


@dataclass(frozen=True)
class CardUse:
    """What a card of one kind of node holds.

    Args:
        node: "node", or its part where nodes differ: "learning node", "generating node".
        card: its number.
        ranks: learner ranks of GRPO on it.
        workers: workers that have a share of it.
        sft_ranks: learner ranks of SFT, before the workers start.
    """

    node: str
    card: int
    ranks: int
    workers: int
    sft_ranks: int


@dataclass(frozen=True)
class Roles:
    """Processes of a run, on all nodes and on one of each kind.

    Args:
        nodes: ranks, workers and SFT's ranks of a node, by the kind of node.
    """

    ranks: int
    workers: int
    sft_ranks: int
    nodes: dict[str, tuple[int, int, int]]


def roles_of(config: ExperimentConfig, n_nodes: int, n_cards: int) -> Roles:
    """How many processes there are, and on which kinds of nodes.

    Args:
        n_cards: of a node.
    """
    ranks, workers, sft = config.learner.ranks, config.rollout.workers, len(sft_cards(config, n_cards))
    learn, generate = learning(config.nodes, n_nodes), generating(config.nodes, n_nodes)
    if config.nodes.generating and n_nodes > 1:
        nodes = {"learning node": (ranks, 0, sft), "generating node": (0, workers, 0)}
    else:
        nodes = {"node": (ranks, workers, sft)}
    return Roles(ranks * len(learn), workers * len(generate), sft * len(learn), nodes)


def sft_cards(config: ExperimentConfig, n_cards: int) -> list[int]:
    """The card of each of SFT's ranks: every card that is named, or those of the learner (`sft.every_card`).

    On a CPU a number without a meaning stands for each rank.
    """
    if n_cards and config.sft.every_card and config.learner.gpus and config.rollout.gpus:
        return sorted({*named_cards(config.learner.gpus, n_cards), *named_cards(config.rollout.gpus, n_cards)})
    learn = named_cards(config.learner.gpus, n_cards) or [0]
    return [learn[rank % len(learn)] for rank in range(config.learner.ranks)]


def card_uses(config: ExperimentConfig, node: str, roles: Roles, n_cards: int) -> list[CardUse]:
    """What every card of a node that is used holds.

    Raises:
        ValueError: a number of cards that the workers cannot share out.
    """
    ranks, workers, sft = roles.nodes[node]
    on: dict[int, list[int]] = {}
    learn = named_cards(config.learner.gpus, n_cards)
    for rank in range(ranks):
        on.setdefault(learn[rank % len(learn)], [0, 0, 0])[0] += 1
    for index in range(workers):
        own = named_cards(worker_gpus(config.rollout, index) if config.rollout.gpus else "", n_cards)
        for card in own[: config.rollout.tensor_parallel]:
            on.setdefault(card, [0, 0, 0])[1] += 1
    for card in sft_cards(config, n_cards) if sft else ():
        on.setdefault(card, [0, 0, 0])[2] += 1
    return [CardUse(node, card, *counts) for card, counts in sorted(on.items())]


def named_cards(named: str, present: int) -> list[int]:
    """The cards that a setting names, or all; those that are not there are another check's."""
    cards = [int(card) for card in named.split(",") if card.strip().isdigit() and int(card) < present]
    return cards or list(range(present))


def absent_cards(config: ExperimentConfig, present: int) -> list[str]:
    """Settings that name cards which a node with so many does not have."""
    found = []
    for key, named in (("learner.gpus", config.learner.gpus), ("rollout.gpus", config.rollout.gpus)):
        gone = [card.strip() for card in named.split(",") if card.strip().isdigit() and int(card) >= present]
        if present and gone:
            there = f"cards 0 to {present - 1}" if present > 1 else "card 0 alone"
            found.append(f"{key} names {', '.join(gone)}, but a node has {there}")
    return found


def layout_for(cards: int, nodes: int) -> dict[str, Any]:
    """Settings that lay a run out on so many cards a node: half of them learn and half generate; one does both.

    Over several nodes half of the nodes do the one, half the other, on all of their cards.
    """
    every = ",".join(map(str, range(cards)))
    if nodes > 1:
        return _places(cards, "", cards, every) | {"nodes.generating": nodes // 2}
    if cards == 1:
        return _places(1, "0", 1, "0") | {"rollout.gpu_memory_fraction": _SHARED}
    half = cards // 2
    return _places(half, every[: 2 * half - 1], half, every[2 * half : 4 * half - 1])


def _places(ranks: int, learn: str, workers: int, generate: str) -> dict[str, Any]:
    return {
        "learner.ranks": ranks, "learner.gpus": learn, "rollout.workers": workers, "rollout.gpus": generate,
        "rollout.tensor_parallel": 1,
    }  # fmt: skip
