"""What a run will need and take, before anything is loaded: tokens, memory by part, bytes a sync, seconds a step.

Pure arithmetic on settings, manifests and a checkpoint's `config.json`. The same numbers decide what `timepro doctor`
and `--dry-run` say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from trainer.launcher.plan.architecture import Architecture, architecture_of
from trainer.launcher.plan.layout import CardUse, Roles, absent_cards, card_uses, roles_of
from trainer.launcher.plan.learner import GIB, RankMemory, number_bytes, rank_memory, sync_mode
from trainer.launcher.plan.machine import CHANGED, Machine
from trainer.launcher.plan.seconds import StepSeconds, step_seconds
from trainer.launcher.plan.serving import WorkerMemory, worker_memory
from trainer.launcher.plan.tokens import Tokens, tokens_of
from trainer.settings.experiment import ExperimentConfig

_WORKER_HOST_GIB = 4.0  # main memory of a worker's processes beside its card (assumed)
_LAUNCHER_GIB = 0.5
_INDEX = 4  # bytes that say which number has changed


@dataclass(frozen=True)
class CardLoad:
    """What is asked of one card, in GiB."""

    use: CardUse
    has: float
    needs: float


class Stages(NamedTuple):
    """Memory of the processes that run together, and of SFT's ranks before them."""

    rank: RankMemory
    worker: WorkerMemory
    sft: RankMemory | None


@dataclass(frozen=True)
class Plan:
    """A run on a machine.

    Args:
        seconds: of every clip, as asked for; 0: as the manifest says.
        rank, worker: memory of one learner rank of GRPO (of SFT where there is no GRPO), and of one worker on one of
            its cards.
        sft: memory of one rank of SFT, which is over when the workers start; None without SFT.
        cards: every card that is used, of one node of each kind.
        host_gib: main memory that the processes of a node need, by the kind of node.
        sync_mode, sync_bytes, transport: what one weight sync sends, and over what.
        step: None on a CPU, whose speed is not assumed, and without GRPO.
        problems: what does not fit; empty where everything does.
    """

    config: ExperimentConfig
    machine: Machine
    seconds: float
    architecture: Architecture
    tokens: Tokens
    roles: Roles
    rank: RankMemory
    worker: WorkerMemory
    sft: RankMemory | None
    cards: list[CardLoad]
    host_gib: dict[str, float]
    sync_mode: str
    sync_bytes: int
    transport: str
    step: StepSeconds | None
    problems: list[str]

    @property
    def absent(self) -> list[str]:
        """Settings that name cards which are not there."""
        return absent_cards(self.config, len(self.machine.cards))

    def problems_of(self, node: str) -> list[str]:
        """What does not fit on one kind of node."""
        cards = [load for load in self.cards if load.use.node == node]
        host = {node: self.host_gib[node]}
        return _problems(self.config, self.machine, Stages(self.rank, self.worker, self.sft), cards, host)


def plan_of(config: ExperimentConfig, machine: Machine, seconds: float = 0.0) -> Plan:
    """Plan a run.

    Args:
        seconds: of every clip, in place of the manifest's; 0: as it says.

    Raises:
        ValueError: a checkpoint whose sizes are not known, a manifest that cannot be read, or cards that the workers
            cannot share out.
    """
    architecture = architecture_of(config.model)
    tokens = tokens_of(config, architecture, seconds)
    gpu, n_cards = bool(machine.cards), len(machine.cards)
    roles = roles_of(config, machine.nodes, n_cards)
    stages = _stages(config, architecture, tokens, roles, machine)
    cards = [load for node in roles.nodes for load in _loads(config, machine, roles, node, stages)]
    host = {node: _host_gib(config, counts, stages, gpu) for node, counts in roles.nodes.items()}
    mode, n_bytes = sync_of(config, architecture, gpu)
    transport = "nccl" if gpu and config.sync.transport != "gloo" and config.cards_apart else "gloo"
    step = None
    if machine.kind is not None and config.grpo.enabled:
        step = step_seconds(
            config, architecture, tokens, machine.kind, roles.ranks, roles.workers,
            stages.worker.answers_at_a_time, n_bytes, transport,
        )  # fmt: skip
    problems = _problems(config, machine, stages, cards, host)
    return Plan(
        config,
        machine,
        seconds,
        architecture,
        tokens,
        roles,
        *stages,
        cards,
        host,
        mode,
        n_bytes,
        transport,
        step,
        problems,
    )


def sync_of(config: ExperimentConfig, architecture: Architecture, gpu: bool) -> tuple[str, int]:
    """What one weight sync sends, and how many bytes.

    Adapters in float32; what has changed, an index and a number each; or everything that is trained.
    """
    decoder, lora, number = architecture.decoder, config.lora, number_bytes(config, gpu)
    mode = sync_mode(config, gpu)
    if mode == "adapters":
        return mode, 4 * decoder.adapter_parameters(lora.rank, lora.targets)
    if mode == "delta":
        return mode, round((_INDEX + number) * CHANGED * decoder.parameters)
    return mode, number * decoder.parameters


def _stages(
    config: ExperimentConfig, architecture: Architecture, tokens: Tokens, roles: Roles, machine: Machine
) -> Stages:
    gpu, sft = bool(machine.cards), None
    if config.sft.enabled:
        sft = rank_memory("SFT", config, architecture, tokens, roles.sft_ranks, gpu)
    if config.grpo.enabled or sft is None:
        rank = rank_memory("GRPO", config, architecture, tokens, roles.ranks, gpu)
    else:
        rank = sft
    card_gib, group = min(machine.cards, default=0.0), config.grpo.groups.group_size
    return Stages(rank, worker_memory(config.rollout, architecture, tokens, group, card_gib), sft)


def _loads(config: ExperimentConfig, machine: Machine, roles: Roles, node: str, stages: Stages) -> list[CardLoad]:
    if not machine.cards:
        return []
    loads, sft = [], 0.0 if stages.sft is None else stages.sft.total / GIB
    for use in card_uses(config, node, roles, len(machine.cards)):
        has = machine.cards[use.card]
        taken = use.workers * config.rollout.gpu_memory_fraction * has
        together = use.ranks * stages.rank.total / GIB if config.grpo.enabled else 0.0
        loads.append(CardLoad(use, has, max(together + taken, use.sft_ranks * sft)))
    return loads


def _host_gib(config: ExperimentConfig, counts: tuple[int, int, int], stages: Stages, gpu: bool) -> float:
    """Of SFT's ranks alone, or of GRPO's with the workers; without GRPO the workers evaluate after SFT.

    Rank 0 has the whole decoder there when it writes the result.
    """

    def of(count: int, one: RankMemory | None) -> float:
        if one is None or not count:
            return 0.0
        return (count * (one.host + (0.0 if gpu else one.total)) + one.written) / GIB

    ranks, workers, sft_ranks = counts
    serving = workers * (_WORKER_HOST_GIB if gpu else stages.worker.total / GIB)
    together = of(ranks, stages.rank) if config.grpo.enabled else 0.0
    return _LAUNCHER_GIB + max(together + serving, of(sft_ranks, stages.sft))


def _problems(
    config: ExperimentConfig, machine: Machine, stages: Stages, cards: list[CardLoad], host: dict[str, float]
) -> list[str]:
    """What does not fit, in words."""
    rank, worker, sft = stages
    found, fraction = absent_cards(config, len(machine.cards)), config.rollout.gpu_memory_fraction
    for load in cards:
        if load.use.workers and worker.least > fraction * load.has * GIB:
            found.append(
                f"a worker needs at least {worker.least / GIB:.1f} GiB, {worker.parts['weights'] / GIB:.1f} of it for "
                f"weights, but rollout.gpu_memory_fraction={fraction:g} leaves it {fraction * load.has:.1f} of "
                f"{load.has:.1f} GiB"
            )
        if load.needs > load.has:
            found.append(
                f"{load.use.node} card {load.use.card} has {load.has:.1f} GiB, but {_who(load, rank, sft, fraction)} "
                f"need {load.needs:.1f}"
            )
    for node, gib in host.items():
        if machine.host_gib and gib > machine.host_gib:
            found.append(f"a {node} has {machine.host_gib:.1f} GiB of main memory, but its processes need {gib:.1f}")
    return list(dict.fromkeys(_first_of_each(found)))


def _who(load: CardLoad, rank: RankMemory, sft: RankMemory | None, fraction: float) -> str:
    if sft is not None and load.use.sft_ranks * sft.total / GIB >= load.needs:
        return f"{load.use.sft_ranks} learner rank(s) of {sft.total / GIB:.1f} GiB (SFT)"
    who = []
    if load.use.ranks:
        who.append(f"{load.use.ranks} learner rank(s) of {rank.total / GIB:.1f} GiB ({rank.stage})")
    if load.use.workers:
        who.append(f"{load.use.workers} worker(s) with {fraction:g} of it")
    return " and ".join(who)


def _first_of_each(problems: list[str]) -> list[str]:
    """Cards that have the same problem are named once."""
    seen: dict[str, str] = {}
    for problem in problems:
        seen.setdefault(" ".join(word for word in problem.split() if not word.isdigit()), problem)
    return list(seen.values())
