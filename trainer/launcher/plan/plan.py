"""What a run will need and take, before anything is loaded: tokens, memory by part, bytes a sync, seconds a step.

Pure arithmetic on settings, manifests and a checkpoint's `config.json`. The same numbers decide what `timepro doctor`
and `--dry-run` say.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.launcher.plan.architecture import Architecture, architecture_of
from trainer.launcher.plan.layout import CardUse, Roles, absent_cards, card_uses, roles_of
from trainer.launcher.plan.learner import GIB, RankMemory, number_bytes, rank_memory
from trainer.launcher.plan.machine import Machine
from trainer.launcher.plan.seconds import StepSeconds, step_seconds
from trainer.launcher.plan.serving import WorkerMemory, worker_memory
from trainer.launcher.plan.tokens import Tokens, tokens_of
from trainer.settings.experiment import ExperimentConfig

_WORKER_HOST_GIB = 4.0  # main memory of a worker's processes beside its card (assumed)


@dataclass(frozen=True)
class CardLoad:
    """What is asked of one card, in GiB."""

    use: CardUse
    has: float
    needs: float


@dataclass(frozen=True)
class Plan:
    """A run on a machine.

    Args:
        seconds: of every clip, as asked for; 0: as the manifest says.
        rank, worker: memory of one learner rank, and of one worker on one of its cards.
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
        return _problems(self.config, self.machine, self.rank, self.worker, cards, host)


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
    roles, gpu = roles_of(config, machine.nodes), bool(machine.cards)
    rank = rank_memory(config, architecture, tokens, roles.ranks, gpu)
    card_gib, group = min(machine.cards, default=0.0), config.grpo.groups.group_size
    worker = worker_memory(config.rollout, architecture, tokens, group, card_gib)
    cards = [load for node in roles.nodes for load in _loads(config, machine, roles, node, rank, worker)]
    host = {node: _host_gib(config, counts, rank, worker, gpu) for node, counts in roles.nodes.items()}
    mode, n_bytes = sync_of(config, architecture, gpu)
    transport = "nccl" if gpu and config.sync.transport != "gloo" and config.cards_apart else "gloo"
    step = None
    if machine.kind is not None and config.grpo.enabled:
        step = step_seconds(
            config, architecture, tokens, machine.kind, roles.ranks, roles.workers, worker.answers_at_a_time, n_bytes,
            transport,
        )  # fmt: skip
    problems = _problems(config, machine, rank, worker, cards, host)
    return Plan(
        config,
        machine,
        seconds,
        architecture,
        tokens,
        roles,
        rank,
        worker,
        cards,
        host,
        mode,
        n_bytes,
        transport,
        step,
        problems,
    )


def sync_of(config: ExperimentConfig, architecture: Architecture, gpu: bool) -> tuple[str, int]:
    """What one weight sync sends, and how many bytes: adapters in float32, or everything that is trained."""
    decoder, lora = architecture.decoder, config.lora
    if lora.rank:
        return "adapters", 4 * decoder.adapter_parameters(lora.rank, lora.targets)
    return "dense", number_bytes(config, gpu) * decoder.parameters


def _loads(
    config: ExperimentConfig, machine: Machine, roles: Roles, node: str, rank: RankMemory, worker: WorkerMemory
) -> list[CardLoad]:
    if not machine.cards:
        return []
    ranks, workers = roles.nodes[node]
    loads = []
    for use in card_uses(config, node, ranks, workers, len(machine.cards)):
        has = machine.cards[use.card]
        taken = use.workers * config.rollout.gpu_memory_fraction * has
        loads.append(CardLoad(use, has, _at_once(config, use.ranks * rank.total / GIB, taken)))
    return loads


def _at_once(config: ExperimentConfig, ranks: float, workers: float) -> float:
    """Without GRPO the workers evaluate after the learner."""
    return ranks + workers if config.grpo.enabled else max(ranks, workers)


def _host_gib(
    config: ExperimentConfig, counts: tuple[int, int], rank: RankMemory, worker: WorkerMemory, gpu: bool
) -> float:
    ranks, workers = counts
    if gpu:
        return _at_once(config, ranks * rank.host / GIB, workers * _WORKER_HOST_GIB)
    return _at_once(config, ranks * (rank.host + rank.total) / GIB, workers * worker.total / GIB)


def _problems(
    config: ExperimentConfig, machine: Machine, rank: RankMemory, worker: WorkerMemory, cards: list[CardLoad],
    host: dict[str, float],
) -> list[str]:  # fmt: skip
    """What does not fit, in words."""
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
                f"{load.use.node} card {load.use.card} has {load.has:.1f} GiB, but {_who(load, rank, fraction)} need "
                f"{load.needs:.1f}"
            )
    for node, gib in host.items():
        if machine.host_gib and gib > machine.host_gib:
            found.append(f"a {node} has {machine.host_gib:.1f} GiB of main memory, but its processes need {gib:.1f}")
    return list(dict.fromkeys(_first_of_each(found)))


def _who(load: CardLoad, rank: RankMemory, fraction: float) -> str:
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
