"""What a trace of PyTorch's profiler (Chrome's format) says: seconds by operator and by kind, a card's busy time."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")
_COMMUNICATION = ("nccl", "gloo:", "gloo::")  # kernels and operators; c10d's own records lie around them


@dataclass
class Operator:
    """All calls of one operator or kernel; `seconds` are its own, without those that it calls."""

    name: str
    calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trace:
    """What a trace holds.

    Args:
        seconds: from its first to its last event.
        operators: of the card where there is one (its kernels), else of the CPU, by their own time.
        on_card: whether they are a card's.
        busy: seconds in which at least one kernel ran; 0 on a CPU.
        gather, reduce: seconds of collectives that gather parameters, and that sum up gradients, on the card or the
            CPU; they may run beside other kernels.
    """

    seconds: float
    operators: list[Operator] = field(default_factory=list)
    on_card: bool = False
    busy: float = 0.0
    gather: float = 0.0
    reduce: float = 0.0


def read_trace(path: Path) -> Trace:
    """A trace file, gzipped or not."""
    raw = path.read_bytes()
    return trace_of(json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)["traceEvents"])


def trace_of(events: Iterable[dict[str, Any]]) -> Trace:
    """What these events say; times in them are microseconds."""
    whole = [event for event in events if event.get("ph") == "X" and "dur" in event]
    kernels = [event for event in whole if event.get("cat") in _KERNELS]
    if not whole:
        return Trace(0.0)
    first, last = min(e["ts"] for e in whole), max(e["ts"] + e["dur"] for e in whole)
    operators = kernels or [event for event in whole if event.get("cat") == "cpu_op"]
    talk = [e for e in kernels or whole if e["name"].lower().startswith(_COMMUNICATION)]
    return Trace(
        seconds=(last - first) / 1e6,
        operators=sorted(_own_times(operators), key=lambda operator: -operator.seconds),
        on_card=bool(kernels),
        busy=_covered(kernels) / 1e6,
        gather=sum(e["dur"] for e in talk if "gather" in e["name"].lower()) / 1e6,
        reduce=sum(e["dur"] for e in talk if "reduce" in e["name"].lower()) / 1e6,
    )


def _own_times(events: Sequence[dict[str, Any]]) -> Iterable[Operator]:
    """By name, the time of events without that of the events inside them on the same thread or stream."""
    found: dict[str, Operator] = {}
    lanes: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for event in events:
        lanes.setdefault((event.get("pid"), event.get("tid")), []).append(event)
    for lane in lanes.values():
        open_: list[tuple[float, Operator]] = []  # when it ends, whose it is
        for event in sorted(lane, key=lambda e: (e["ts"], -e["dur"])):
            while open_ and open_[-1][0] <= event["ts"]:
                open_.pop()
            operator = found.setdefault(event["name"], Operator(event["name"]))
            operator.calls += 1
            operator.seconds += event["dur"] / 1e6
            if open_:
                open_[-1][1].seconds -= event["dur"] / 1e6
            open_.append((event["ts"] + event["dur"], operator))
    return found.values()


def _covered(events: Sequence[dict[str, Any]]) -> float:
    """How long at least one of the events went on."""
    total, until = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e["ts"]):
        begin, end = event["ts"], event["ts"] + event["dur"]
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
