"""The machines that a plan is for: cards by their memory, and what is assumed of their speed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from timepro.system.device import gpu_memory_gib, on_gpu
from trainer.launcher.nodes.node import node_count
from trainer.settings.experiment import ExperimentConfig

_MOST_A_NODE = 8


@dataclass(frozen=True)
class Card:
    """A kind of card, with the numbers of its data sheet.

    Args:
        gb: as it is sold.
        gib: that CUDA can give out.
        tflops: bfloat16, dense, 10^12 a second.
        memory_tb_s: of its own memory, 10^12 bytes a second.
        link_gb_s: to the other cards of its node, in one direction, 10^9 bytes a second.
    """

    name: str
    gb: int
    gib: float
    tflops: float
    memory_tb_s: float
    link_gb_s: float


CARDS = (
    Card("A100 40 GB", 40, 39.4, 312, 1.56, 300),
    Card("H100 80 GB", 80, 79.1, 989, 3.35, 450),
    Card("H200 141 GB", 141, 139.8, 989, 4.8, 450),
)
# What of a data sheet's numbers programs reach. In training an H200 has shown 30 to 53 % (trainer/README.md).
MFU_TRAINING, MFU_PREFILL = 0.35, 0.40  # share of the arithmetic
SHARE_DECODING, SHARE_LINK = 0.6, 0.5  # share of the memory's and the link's speed
DECODING_OVERHEAD_S = {False: 0.015, True: 0.005}  # of a step of vLLM, without and with `rollout.compile`
SYNC_GB_S = {"nccl": 8.0, "gloo": 0.5}  # of the whole stream: gather, wire, load
CHANGED = 0.02  # share of bfloat16 weights that a step of RL changes (about 1 % is published)
CPU_ADAMW_NUMBERS_S = 2e8  # numbers that torch's AdamW updates in main memory


@dataclass(frozen=True)
class Machine:
    """Where a run is to be planned.

    Args:
        nodes: alike.
        cards: memory of each card of a node in GiB; empty: a CPU.
        kind: whose speed is assumed; None on a CPU, of which nothing is assumed.
        host_gib: main memory of a node; 0: not known.
        assumed: whether the cards are not this machine's.
    """

    nodes: int
    cards: tuple[float, ...]
    kind: Card | None
    host_gib: float = 0.0
    assumed: bool = False

    def __str__(self) -> str:
        if not self.cards:
            return "no card: everything on the CPU"
        nodes = f"{self.nodes} nodes of " if self.nodes > 1 else ""
        count = len(self.cards)
        return (
            f"{nodes}{count} card{'s' if count > 1 else ''} of {self.cards[0]:.0f} GiB ({self.kind and self.kind.name})"
        )


def card_of(gb: float) -> Card:
    """The kind of card that has about so much memory; another size has the next larger kind's speed."""
    kind = next((card for card in CARDS if card.gb >= gb * 0.97), CARDS[-1])
    return kind if abs(kind.gb - gb) < 1 else Card(f"{gb:g} GB", round(gb), gb * 0.985, *_speeds(kind))


def _speeds(kind: Card) -> tuple[float, float, float]:
    return kind.tflops, kind.memory_tb_s, kind.link_gb_s


def this_machine(nodes: int, host_gib: float = 0.0) -> Machine:
    """This machine as it is, one of so many alike."""
    found = gpu_memory_gib() if on_gpu() else ()
    return Machine(nodes, found, card_of(found[0] * 1.01) if found else None, host_gib)


def machine_of(config: ExperimentConfig, cards: int = 0, gb: float = 0.0, nodes: int = 0) -> Machine:
    """The machine that was asked for; else this one where it has cards, or the least that the experiment names.

    Args:
        cards: of each node; 0: as many as there are, or as the experiment names.
        gb: memory of each card; 0: as they have, or 80.
        nodes: 0: NNODES, or as many as the experiment's roles want.
    """
    nodes = nodes or (node_count() if "NNODES" in os.environ else _named_nodes(config))
    if on_gpu() and not cards and not gb:
        return this_machine(nodes)
    wanted = cards or _named_cards(config)
    if not wanted and not gb:
        return Machine(nodes, (), None)
    kind = card_of(gb or 80)
    return Machine(nodes, (kind.gib,) * (wanted or 1), kind, assumed=True)


def _named_nodes(config: ExperimentConfig) -> int:
    return config.nodes.generating + 1 if config.nodes.generating else 1


def _named_cards(config: ExperimentConfig) -> int:
    """The highest card that a setting names, and at least one a rank where only the workers name theirs."""
    named = [
        int(card) + 1
        for cards in (config.learner.gpus, config.rollout.gpus)
        for card in cards.split(",")
        if card.strip().isdigit()
    ]
    return min(_MOST_A_NODE, max([*named, config.learner.ranks])) if named else 0
