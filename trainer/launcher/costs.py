"""What a run has taken, stage by stage: time, memory; and the disk that it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from timepro.progress import clock
from timepro.tables import plain_table

_DATA = "data-"  # a stage a split, shown as one


def cost_table(summary: Mapping[str, Any]) -> Table:
    """A row a stage: its time, its share of the whole, the most memory that it took (on one node)."""
    stages: dict[str, float] = {}
    memory: dict[str, float] = {}
    for name, seconds in summary["stages"].items():
        shown = "data" if name.startswith(_DATA) else name
        stages[shown] = stages.get(shown, 0.0) + seconds
        memory[shown] = max(memory.get(shown, 0.0), summary.get("stage_memory_gib", {}).get(name, 0.0))
    total = sum(stages.values())
    rows = [
        [
            Text(clock(seconds) if seconds else "kept"),
            Text(f"{seconds / total:.0%}" if seconds else "-"),
            Text(f"{memory[name]:.1f}" if memory[name] else "-"),
            Text(name),
        ]
        for name, seconds in stages.items()
    ]
    rows.append([Text(clock(total)), Text("100%"), Text(f"{summary['peak_memory_gib']:.1f}"), Text("all stages")])
    return plain_table("What the run took", ["time", "share", "memory (GiB)", "stage"], rows, prose=1)


def disk_line(run: Path, cache: Path) -> str:
    """How much disk the run holds, and the stages that it may share with others."""
    kept = f"{disk_gib(cache):.2f} GiB of kept stages and features in {cache}"
    return f"disk         {disk_gib(run):.2f} GiB in {run}, {kept}"


def disk_gib(folder: Path) -> float:
    """GiB of a folder's files; links are not followed, and a file of several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                about = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue  # removed meanwhile, by another run
            seen[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(seen.values()) / 2**30
