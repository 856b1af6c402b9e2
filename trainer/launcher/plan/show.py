"""A plan for people: what is asked, what it needs, what does not fit and what would; and the same for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from trainer.launcher.plan import passes
from trainer.launcher.plan.fit import Change, as_typed, changed
from trainer.launcher.plan.learner import GIB, how_of, trained_of
from trainer.launcher.plan.machine import (
    DECODING_OVERHEAD_S,
    MFU_PREFILL,
    MFU_TRAINING,
    SHARE_DECODING,
    SHARE_LINK,
    SYNC_GB_S,
)
from trainer.launcher.plan.plan import CardLoad, Plan, plan_of

_SHOWN_GIB = 0.05  # a smaller part is left out of the table


def opening(plan: Plan) -> list[str]:
    """What is planned: checkpoint, data, machine."""
    architecture, lora = plan.architecture, plan.config.lora
    trained = trained_of(plan.config, architecture, plan.roles.ranks, bool(plan.machine.cards), grpo=True)
    how = f"adapters of rank {lora.rank}" if lora.rank else "all weights of the decoder"
    stands_in = "" if architecture.name in ("", plan.config.model.path) or not plan.config.model.path else (
        f" (by its published configuration; {plan.config.model.path} is not there yet)"
    )  # fmt: skip
    assumed = ", which are assumed: --cards, --gb and --nodes name others" if plan.machine.assumed else ""
    return [
        f"checkpoint   {architecture.name}{stands_in}: {architecture.parameters / 1e9:.2f} billion parameters, "
        f"{trained.numbers / 1e6:,.1f} million of them trained ({how})",
        f"data         {plan.tokens.known}",
        f"machine      {plan.machine}{assumed}",
        f"processes    {plan.roles.ranks} learner rank(s), {plan.roles.workers} rollout worker(s)",
    ]


def token_table(plan: Plan) -> Table:
    """Tokens on average and at most."""
    tokens, groups = plan.tokens, plan.config.grpo.groups
    frames = f"{tokens.seconds:.3g} s of audio with its timestamps, and about {tokens.question} of text"
    row, longest = tokens.row(groups.group_size), tokens.longest_row(groups.group_size)
    one, step = plan.rank.one, groups.prompts_per_step
    rows: list[tuple[str, str, str, str]] = [
        ("a prompt", f"{tokens.prompt:,}", f"{tokens.longest_prompt:,}", frames),
        ("an answer", f"{tokens.answer:,}", f"{tokens.longest_answer:,}", "at most grpo.groups.max_tokens"),
        ("a row", f"{row:,}", f"{longest:,}", f"a prompt once, with its {groups.group_size} answers"),
        ("a step", f"{step * row:,}", f"{step * longest:,}", f"{step} prompts, {step * groups.group_size} answers"),
        ("a micro-batch", "", f"{one.tokens:,}", f"{one.rows} row(s) of {one.width:,} on a rank, in {plan.rank.stage}"),
    ]
    return _table("Tokens", ["", "on average", "at most", ""], rows, (1, 2))


def memory_table(plan: Plan) -> Table:
    """Memory by part of a rank at its peak, and of a worker."""
    rows = [("a rank", *_part(name, size), _rank_remark(plan, name)) for name, size in plan.rank.parts.items()]
    rows.append(("", f"{plan.rank.total / GIB:.1f}", "in all", f"in {plan.rank.stage}, at {plan.rank.moment}"))
    rows += [("a worker", *_part(name, size), _worker_remark(plan, name)) for name, size in plan.worker.parts.items()]
    rows.append(
        ("", f"{plan.worker.total / GIB:.1f}", "in all", f"it starts with {plan.worker.least / GIB:.1f} or more")
    )
    if plan.sft is not None and plan.sft is not plan.rank:
        before = f"of {plan.roles.sft_ranks}, before the workers start; at {plan.sft.moment}"
        rows.append(("a rank of SFT", f"{plan.sft.total / GIB:.1f}", "in all", before))
    shown = [row for row in rows if row[2] == "in all" or float(row[1]) > _SHOWN_GIB]
    where = "one card" if plan.machine.cards else "main memory"
    return _table(f"Memory of a process on {where}, GiB", ["", "GiB", "part", ""], shown, (1,))


def _part(name: str, size: float) -> tuple[str, str]:
    return f"{size / GIB:.2f}", name


def _rank_remark(plan: Plan, part: str) -> str:
    config, tokens = plan.config, plan.tokens
    batch = config.grpo.batch if plan.rank.stage == "GRPO" else config.sft.batch
    if part == "activations":
        how = how_of(config, batch, bool(plan.machine.cards))
        other = replace(how, checkpointing=not how.checkpointing)
        size = passes.kept_bytes(plan.architecture.decoder, other, plan.rank.one) / GIB
        return f"{size:.1f} {'without' if how.checkpointing else 'with'} gradient_checkpointing"
    if part in ("weights", "gradients", "optimiser") and plan.roles.ranks > 1:
        return f"of {plan.roles.ranks} ranks' together"
    if part == "encoded frames":
        return f"of {tokens.clips:,} clips" if tokens.clips else "batch.frame_cache_gib"
    return "whole while they are computed with" if part == "gathered layers" else ""


def _worker_remark(plan: Plan, part: str) -> str:
    worker, width = plan.worker, plan.config.rollout.tensor_parallel
    if part == "key-value cache":
        return f"{worker.cache_tokens:,} tokens; {worker.answers_at_a_time} of the longest answers at a time"
    if part == "weights":
        return f"on {width} cards together" if width > 1 else ""
    return "rollout.max_batched_tokens at once" if part == "a pass" else ""


def card_table(plan: Plan) -> Table:
    """What every card holds; cards that hold the same are one row."""
    rows = []
    for loads in alike(plan):
        first = loads[0]
        counts = ((first.use.ranks, "rank"), (first.use.workers, "worker"))
        who = " and ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in counts if n)
        fits = "fits" if first.needs <= first.has else "DOES NOT FIT"
        rows.append((_which(loads), f"{first.needs:.1f}", f"{first.has:.1f}", f"{who}: {fits}"))
    for node, gib in plan.host_gib.items():
        has = f"{plan.machine.host_gib:.1f}" if plan.machine.host_gib else ""
        rows.append((f"{node}: main memory", f"{gib:.1f}", has, "of all its processes, when they start"))
    return _table("Cards and nodes, GiB", ["", "needs", "has", ""], rows, (1, 2))


def step_table(plan: Plan) -> Table | None:
    """Seconds of a step; None where nothing is assumed of the machine's speed."""
    if plan.step is None:
        return None
    by_token = 1000 * DECODING_OVERHEAD_S[plan.config.rollout.compile]
    sent = f"{plan.sync_bytes / 1e6:,.0f} MB ({plan.sync_mode}) over {plan.transport}"
    how = {
        "generate": f"prompts at {MFU_PREFILL:.0%} of the arithmetic; then weights and cache at {SHARE_DECODING:.0%} "
        f"of the memory's speed, and {by_token:.0f} ms a token",
        "encode": "the learner's pass through the audio encoder",
        "train": f"{MFU_TRAINING:.0%} of the arithmetic, or the weights' way at {SHARE_LINK:.0%} of the link",
        "optimiser": "on the CPU" if plan.config.zero.offload_optimiser else "at the memory's speed",
        "sync": f"{sent} at {SYNC_GB_S[plan.transport]:g} GB/s",
    }
    rows = [(name, f"{seconds:.2f}", how[name]) for name, seconds in plan.step.phases.items()]
    steps = plan.config.grpo.max_steps
    whole = f"{steps:,} steps: {plan.step.total * steps / 3600:.1f} h, validation and start not counted"
    rows.append(("a step", f"{plan.step.total:.2f}", whole))
    return _table("Seconds of a step, estimated", ["", "s", "by"], rows, (1,))


def closing(plan: Plan, changes: Sequence[Change] | None) -> list[str]:
    """Whether it fits, and what would."""
    if not plan.problems:
        return ["It fits."]
    lines = [f"does not fit: {problem}" for problem in plan.problems]
    if changes is None:
        return [*lines, "No change of settings alone helps: take more cards, or larger ones."]
    better = plan_of(changed(plan.config, changes), plan.machine, plan.seconds)
    cards = "; ".join(f"{_which(loads)}: {loads[0].needs:.1f} of {loads[0].has:.1f} GiB" for loads in alike(better))
    takes = f"; about {better.step.total:.1f} s a step" if better.step is not None else ""
    return [*lines, f"nearest settings that fit: {' '.join(as_typed(changes))}", f"with them: {cards}{takes}"]


def as_json(plan: Plan, changes: Sequence[Change] | None) -> dict[str, Any]:
    """All numbers of a plan; memory in bytes."""
    return {
        "architecture": {
            "name": plan.architecture.name, "family": plan.architecture.family.name,
            "parameters": plan.architecture.parameters,
        },
        "tokens": asdict(plan.tokens),
        "machine": asdict(plan.machine),
        "rank": asdict(plan.rank) | {"total": plan.rank.total},
        "worker": asdict(plan.worker) | {"total": plan.worker.total},
        "cards": [asdict(load) for load in plan.cards],
        "host_gib": plan.host_gib,
        "sync": {"mode": plan.sync_mode, "bytes": plan.sync_bytes, "transport": plan.transport},
        "step": None if plan.step is None else plan.step.phases | {"total": plan.step.total},
        "problems": plan.problems,
        "changes": None if changes is None else as_typed(changes),
    }  # fmt: skip


def in_short(plan: Plan, changes: Sequence[Change] | None) -> list[str]:
    """The plan in a few lines, for `--dry-run`."""
    tokens, group, one = plan.tokens, plan.config.grpo.groups.group_size, plan.rank.one
    audio = tokens.longest_prompt - tokens.question
    sizes = f"prompt {audio} of audio and {tokens.question} of text, answers {group} x {tokens.longest_answer}"
    shown = sorted(plan.rank.parts.items(), key=lambda part: -part[1])[:3]
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in shown)
    lines = [
        f"longest row            about {tokens.longest_row(group)} tokens ({sizes})",
        f"largest micro-batch    {one.rows} row(s), {one.tokens} padded tokens, in {plan.rank.stage}",
        f"a rank needs           {plan.rank.total / GIB:.1f} GiB in {plan.rank.stage} ({parts})",
        *(
            [f"and in SFT             {plan.sft.total / GIB:.1f} GiB ({plan.roles.sft_ranks} ranks)"]
            if plan.sft
            else []
        ),
        f"a worker takes         {plan.worker.total / GIB:.1f} GiB "
        f"(weights {plan.worker.parts['weights'] / GIB:.1f}, room for {plan.worker.cache_tokens:,} tokens)",
        *(f"{_which(loads):22} {loads[0].needs:.1f} of {loads[0].has:.1f} GiB" for loads in alike(plan)),
        f"a sync                 {plan.sync_bytes / 1e6:,.1f} MB ({plan.sync_mode}) over {plan.transport}",
    ]
    if plan.step is not None:
        lines.append(
            f"a step                 about {plan.step.total:.1f} s on {plan.machine.kind and plan.machine.kind.name}"
        )
    return lines + (closing(plan, changes) if plan.problems else [])


def alike(plan: Plan) -> list[list[CardLoad]]:
    """Cards that hold the same, together."""
    groups: dict[tuple[Any, ...], list[CardLoad]] = {}
    for load in plan.cards:
        groups.setdefault((load.use.node, load.use.ranks, load.use.workers, load.use.sft_ranks, load.has), []).append(
            load
        )
    return list(groups.values())


def _which(loads: Sequence[CardLoad]) -> str:
    first, last = loads[0].use.card, loads[-1].use.card
    return f"{loads[0].use.node}, card{f's {first} to {last}' if len(loads) > 1 else f' {first}'}"


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Table:
    """Texts to the left; the columns in `numbers` to the right."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if number in numbers else "left", no_wrap=number in numbers)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
