"""The page of a profile, as Markdown: where the step's time went, and the operators that took most of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.learner.trace import Trace

_OPERATORS = 15
_LONGEST_NAME = 90  # characters; kernels are named after all their types
_TRAIN = ("forward", "backward", "optimiser")  # spans of the phase "train"


@dataclass
class Measured:
    """Times of some steps, added up.

    Args:
        seconds: of whole steps, with what lies between them.
        phases, spans: by name; a span lies within a phase.
        cpu_s: CPU time of the process.
    """

    steps: int = 0
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    spans: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0

    def add_step(self, seconds: float, phases: Mapping[str, float]) -> None:
        """Count a step."""
        self.steps, self.seconds = self.steps + 1, self.seconds + seconds
        for name, own in phases.items():
            self.phases[name] = self.phases.get(name, 0.0) + own

    def add_span(self, name: str, seconds: float) -> None:
        """Count a span."""
        self.spans[name] = self.spans.get(name, 0.0) + seconds


def page(steps: str, before: Measured, during: Measured, traces: Mapping[str, Sequence[Trace]]) -> str:
    """The whole page.

    Args:
        steps: which were profiled, in words.
        before: the steps before them, without the profiler.
        traces: of learner and workers, by name.
    """
    learner = traces["learner rank 0"][0]
    lines = [
        f"# Where the time of {steps} went",
        "",
        f"Learner rank 0, {during.steps} step(s) under the profiler, which makes them slower; beside them the "
        f"{before.steps} before. Open the traces in this folder with ui.perfetto.dev.",
        "",
        "| | seconds a step | share | without the profiler |",
        "| --- | ---: | ---: | ---: |",
        *_rows(before, during),
        "",
        *_beside(during, learner),
    ]
    for name, parts in traces.items():
        for trace in parts:
            lines += ["", *_operators(name, trace)]
    return "\n".join(lines) + "\n"


def _rows(before: Measured, during: Measured) -> list[str]:
    n, total = max(during.steps, 1), max(during.seconds, 1e-9)
    rows = []

    def row(name: str, seconds: float, bare: float | None) -> None:
        without = "" if bare is None or not before.steps else f"{bare / before.steps:.3f}"
        rows.append(f"| {name} | {seconds / n:.3f} | {seconds / total:.0%} | {without} |")

    for phase, seconds in during.phases.items():
        row(phase, seconds, before.phases.get(phase, 0.0))
        if phase == "train":
            parts = {part: during.spans.get(part, 0.0) for part in _TRAIN}
            parts["collating, counting, log-probabilities before it"] = seconds - sum(parts.values())
            for part, own in parts.items():
                row(f"&nbsp;&nbsp;{part}", own, None)
        if phase == "sync" and "gather" in during.spans:
            row("&nbsp;&nbsp;gather for the workers", during.spans["gather"], None)
    row("between phases: log, validation, checkpoints", total - sum(during.phases.values()),
        before.seconds - sum(before.phases.values()))  # fmt: skip
    row("**a step**", total, before.seconds)
    return rows


def _beside(during: Measured, trace: Trace) -> list[str]:
    """What does not add up with the phases, since it happens within them or beside them."""
    n, total = max(during.steps, 1), max(during.seconds, 1e-9)
    if trace.on_card:
        idle, what = total - trace.busy, "no kernel ran on its card"
    else:
        idle, what = max(0.0, total - during.cpu_s), "its process used no CPU (waiting for workers and other ranks)"
    return [
        f"- idle: {idle / n:.3f} s a step ({idle / total:.0%}), in which {what}",
        f"- gathering partitioned parameters (ZeRO-3): {trace.gather / n:.3f} s a step ({trace.gather / total:.0%}), "
        "some of it beside other work",
        f"- summing up gradients over ranks: {trace.reduce / n:.3f} s a step ({trace.reduce / total:.0%})",
    ]


def _operators(name: str, trace: Trace) -> list[str]:
    kind = "kernels" if trace.on_card else "operators"
    total = max(sum(operator.seconds for operator in trace.operators), 1e-9)
    busy = f", busy for {trace.busy:.2f} s" if trace.on_card else ""
    lines = [
        f"## Top {kind}, {name} ({trace.seconds:.2f} s traced{busy})",
        "",
        f"| {kind[:-1]} | calls | seconds | share |",
        "| --- | ---: | ---: | ---: |",
    ]
    for operator in trace.operators[:_OPERATORS]:
        shown = operator.name if len(operator.name) <= _LONGEST_NAME else f"{operator.name[:_LONGEST_NAME]}..."
        shown = shown.replace("|", "\\|")
        lines.append(f"| `{shown}` | {operator.calls:,} | {operator.seconds:.3f} | {operator.seconds / total:.0%} |")
    return lines
