"""The nearest settings that fit, where a run does not: what costs least is changed first."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.launcher.plan.layout import layout_for
from trainer.launcher.plan.learner import GIB
from trainer.launcher.plan.machine import Machine
from trainer.launcher.plan.plan import Plan, plan_of
from trainer.settings.experiment import ExperimentConfig

_LEAST_BATCHED_TOKENS = 8192  # of vLLM's pass; fewer would cut many prompts
_ADAPTER_RANK = 8  # the paper's
Change = tuple[str, Any]


def nearest(config: ExperimentConfig, machine: Machine, seconds: float = 0.0) -> list[Change] | None:
    """Settings that make a run fit: the fewest of a fixed order, none that is not needed.

    Returns:
        keys and values, empty where it fits as it is; None where none of them helps.
    """
    changes: list[Change] = []
    plan = plan_of(config, machine, seconds)
    for propose in (_layout, _checkpointing, _smaller_passes, _share, _offload, _share, _adapters, _share):
        for step in propose(plan) if plan.problems else ():
            new = {key for key, _ in step}
            changes = [*(old for old in changes if old[0] not in new), *step]
            plan = plan_of(changed(config, changes), machine, seconds)
            if not plan.problems:
                break
    return None if plan.problems else _needed(config, machine, seconds, changes)


def _needed(config: ExperimentConfig, machine: Machine, seconds: float, changes: list[Change]) -> list[Change]:
    """Without those that later, larger changes have made needless; of two that do, the one that costs less stays."""
    for change in reversed(changes):
        without = [other for other in changes if other != change]
        if _fits(changed(config, without), machine, seconds):
            return _needed(config, machine, seconds, without)
    return changes


def _fits(config: ExperimentConfig, machine: Machine, seconds: float) -> bool:
    try:
        return not plan_of(config, machine, seconds).problems
    except ValueError:  # half of a layout contradicts itself
        return False


def as_typed(changes: Sequence[Change]) -> list[str]:
    """`key=value` for the command line."""
    return [f"{key}={_typed(value)}" for key, value in changes]


def changed(config: ExperimentConfig, changes: Sequence[Change]) -> ExperimentConfig:
    """A copy with other settings."""
    new = copy.deepcopy(config)
    for key, value in changes:
        *path, last = key.split(".")
        place: Any = new
        for part in path:
            place = getattr(place, part)
        setattr(place, last, value)
    return new


def _stages(plan: Plan) -> list[str]:
    return [name for name in ("sft", "grpo") if getattr(plan.config, name).enabled]


def _layout(plan: Plan) -> Iterator[list[Change]]:
    """Ranks and workers for the cards that there are."""
    if plan.machine.cards and (plan.absent or any(load.use.ranks > 1 or load.use.workers > 1 for load in plan.cards)):
        yield list(layout_for(len(plan.machine.cards), plan.machine.nodes).items())


def _checkpointing(plan: Plan) -> Iterator[list[Change]]:
    for stage in _stages(plan):
        if not getattr(plan.config, stage).batch.gradient_checkpointing:
            yield [(f"{stage}.batch.gradient_checkpointing", True)]


def _smaller_passes(plan: Plan) -> Iterator[list[Change]]:
    """Smaller micro-batches, down to a prompt with one answer; then a smaller pass of the workers."""
    least = plan.tokens.longest_prompt + plan.tokens.longest_answer
    size = max(getattr(plan.config, stage).batch.micro_batch_tokens for stage in _stages(plan))
    while (size := size // 2) >= least:
        for stage in _stages(plan):
            if getattr(plan.config, stage).batch.micro_batch_tokens > size:
                yield [(f"{stage}.batch.micro_batch_tokens", size)]
    size = plan.config.rollout.max_batched_tokens
    while (size := size // 2) >= max(_LEAST_BATCHED_TOKENS, plan.config.rollout.max_model_len):
        yield [("rollout.max_batched_tokens", size)]


def _share(plan: Plan) -> Iterator[list[Change]]:
    """The workers' share of a card: what the learner leaves where they share one, else nearly all of it."""
    wanted = []
    for load in plan.cards:
        if not load.use.workers:
            continue
        left = load.has - load.use.ranks * plan.rank.total / GIB if plan.config.grpo.enabled else load.has
        wanted.append(min(0.9, left / load.has) / load.use.workers)
    if wanted and (share := math.floor(100 * min(wanted)) / 100) > 0:
        yield [("rollout.gpu_memory_fraction", share)]


def _offload(plan: Plan) -> Iterator[list[Change]]:
    if not plan.config.lora.rank and not plan.config.zero.offload_optimiser:
        yield [("zero.offload_optimiser", True)]


def _adapters(plan: Plan) -> Iterator[list[Change]]:
    if not plan.config.lora.rank:
        yield [("lora.rank", _ADAPTER_RANK)]


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
