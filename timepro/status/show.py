"""A run's status in the terminal: a few lines, and tables of phases, nodes, processes and cards."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from timepro.progress import clock
from timepro.status.read import NodeStatus, RunStatus
from timepro.tables import plain_table, print_lines, print_table


def print_status(status: RunStatus, form: str = "text") -> None:
    """All of it, as text, Markdown or LaTeX."""
    print_lines(status_lines(status), form)
    for table in status_tables(status):
        print_table(table, form)


def status_lines(status: RunStatus) -> list[str]:
    """The state, the place in the run, the pace and the end, a line each."""
    lines = [f"{status.run}: {status.state}{f', {status.why}' if status.why else ''}"]
    if place := _place(status):
        lines.append(f"  {place}")
    if pace := _pace(status):
        lines.append(f"  {pace}")
    if status.state in ("running", "silent"):
        lines.append(f"  {_end(status)}")
    if status.last_sign is not None and status.age_s is not None:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.last_sign))
        lines.append(f"  last sign of life {ago(status.age_s)} ago ({at})")
    problems = [f"  node {node.report.node}: {node.report.problem}" for node in status.nodes if node.report.problem]
    return lines + problems


def status_tables(status: RunStatus) -> list[Table]:
    """Those of which something is known."""
    tables = [_phase_table(status)] if status.phases else []
    if status.nodes:
        tables.append(_node_table(status.nodes))
    if status.state in ("running", "silent"):
        if any(node.report.processes for node in status.nodes):
            tables.append(_process_table(status.nodes))
        if any(node.report.cards for node in status.nodes):
            tables.append(_card_table(status.nodes))
    return tables


def ago(seconds: float) -> str:
    """`4 s`, `3:20` or `5 days`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return clock(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def _place(status: RunStatus) -> str:
    parts = []
    if status.stage:
        parts.append(f"stage {status.stage}" + (f" for {clock(status.stage_s)}" if status.stage_s is not None else ""))
    if status.step or status.of:
        parts.append(f"{status.job} step {status.step:,}" + (f" of {status.of:,}" if status.of else ""))
    if status.phase:
        parts.append(f"{status.phase} for {ago(status.phase_s or 0.0)}")
    if status.started:
        parts.append(f"started {status.started[:16]}")
    return ", ".join(parts)


def _pace(status: RunStatus) -> str:
    numbers = status.numbers
    parts = [f"{status.step_s:.2f} s a step"] if status.step_s is not None else []
    for name, words in (("tokens_per_second", "tokens a second"), ("answers_per_second", "answers a second")):
        if name in numbers:
            parts.append(f"{numbers[name]:,.0f} {words}")
    if "staleness" in numbers:
        parts.append(f"staleness {numbers['staleness']:.2f} updates")
    parts += [f"{name} {numbers[name]:.3f}" for name in ("reward", "loss") if name in numbers]
    return ", ".join(parts)


def _end(status: RunStatus) -> str:
    if status.eta_s is None:
        unknown = [name for name, seconds in status.later.items() if seconds is None]
        return f"ETA not known{f' (no earlier run tells how long {unknown[0]} takes)' if unknown else ''}"
    later = ", ".join(f"{name} {clock(seconds)}" for name, seconds in status.later.items() if seconds)
    return f"ETA {clock(status.eta_s)}{f', of which later stages: {later}' if later else ''}"


def _phase_table(status: RunStatus) -> Table:
    total = status.numbers.get("step_time", 0.0) or sum(status.phases.values())
    phases = sorted(status.phases.items(), key=lambda item: -item[1])
    rest = total - sum(status.phases.values())
    rows = [(f"{seconds:.3f}", f"{seconds / max(total, 1e-9):.0%}", name) for name, seconds in phases]
    if rest > 0.005 * total:
        rows.append((f"{rest:.3f}", f"{rest / total:.0%}", "between phases"))
    return plain_table("The last step, of the slowest rank", ["seconds", "share", "phase"], _texts(rows), prose=1)


def _node_table(nodes: Sequence[NodeStatus]) -> Table:
    rows = []
    for node in nodes:
        report = node.report
        counts = {kind: [p for p in report.processes if p.kind == kind] for kind in ("rank", "worker")}
        up = {kind: sum(p.state == "running" for p in found) for kind, found in counts.items()}
        said = f"silent for {ago(node.age_s)}" if node.silent else report.ended or f"{ago(node.age_s)} ago"
        rows.append(
            (
                str(report.node), f"{up['rank']}/{len(counts['rank'])}", f"{up['worker']}/{len(counts['worker'])}",
                f"{report.memory_gib:.1f}", f"{report.peak_gib:.1f}",
                f"{report.machine_used_gib:.0f}/{report.machine_gib:.0f}", f"{report.cpu:.0%}", report.host, said,
            )
        )  # fmt: skip
    headings = ["node", "ranks", "workers", "GiB", "peak GiB", "machine GiB", "CPU", "host", "last sign"]
    return plain_table("Nodes", headings, _texts(rows))


def _process_table(nodes: Sequence[NodeStatus]) -> Table:
    rows = [
        (
            str(node.report.node), f"{process.kind} {process.name}", str(process.pid or "-"),
            f"{process.memory_gib:.2f}", str(process.restarts or "-"), process.state, process.note,
        )
        for node in nodes
        for process in node.report.processes
    ]  # fmt: skip
    return plain_table("Processes", ["node", "process", "pid", "GiB", "restarts", "state", ""], _texts(rows))


def _card_table(nodes: Sequence[NodeStatus]) -> Table:
    rows = [
        (
            str(node.report.node), str(card.index), f"{card.busy:.0%}", f"{minute:.0%}",
            f"{card.memory_gib:.1f}/{card.total_gib:.0f}", card.name,
        )
        for node in nodes
        for card, minute in zip(node.report.cards, node.report.busy_minute, strict=True)
    ]  # fmt: skip
    return plain_table("Cards", ["node", "card", "busy", "last minute", "memory (GiB)", "name"], _texts(rows), prose=1)


def _texts(rows: Sequence[Sequence[str]]) -> list[list[Text]]:
    return [[Text(cell) for cell in row] for row in rows]
