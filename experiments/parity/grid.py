"""The axes of the parity matrix, its cells, and which of them share a worker."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timepro.families import all_families
from timepro.system.files import write_json
from timepro.system.source import import_closure
from timepro.tiny.config import TimestampsConfig

FAMILIES = tuple(family.name for family in all_families())
VOCABULARIES: dict[str, dict[str, Any]] = {
    "table": {},
    "factorised": {"timestamps": TimestampsConfig(duration=3600.0, style="factorised")},
}
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {  # the vocabulary, and what differs from a fresh checkpoint's
    "off": ("table", {"enabled": False}),
    "on": ("table", {}),
    "stride 5": ("table", {"every": 5}),
    "before": ("table", {"position": "before"}),
    "factorised, before": ("factorised", {"position": "before"}),
}
HEADS = {"untied": False, "tied": True}
WEIGHTS = ("base", "3 syncs", "adapters")
BATCHES = ("1 clip", "2 clips")
ADAPTERS = "adapters"  # of `WEIGHTS`: they need a worker that was started for them


@dataclass(frozen=True)
class Group:
    """Cells of one checkpoint: they share a learner, a worker of whole weights and one with adapters."""

    family: str
    head: str
    dtype: str
    vocabulary: str


@dataclass(frozen=True)
class Cell:
    """One comparison."""

    group: Group
    layout: str
    weights: str
    batch: str

    @property
    def title(self) -> str:
        group = self.group
        return ", ".join([group.family, group.head, group.dtype, self.layout, self.weights, self.batch])

    @property
    def n_clips(self) -> int:
        return BATCHES.index(self.batch) + 1


def cells(families: Iterable[str], layouts: Iterable[str], heads: Iterable[str], bfloat16: bool) -> list[Cell]:
    """The chosen cells, those of a group together; in bfloat16 with an untied head and one token a time alone."""
    layouts = tuple(layouts)
    kinds = list(itertools.product(families, heads, ("float32",), VOCABULARIES))
    kinds += [(family, "untied", "bfloat16", "table") for family in families] if bfloat16 else []
    return [
        Cell(group, layout, *rest)
        for group in itertools.starmap(Group, kinds)
        for layout in layouts
        if LAYOUTS[layout][0] == group.vocabulary
        for rest in itertools.product(WEIGHTS, BATCHES)
    ]


class Results:
    """A file for every cell that has been measured, in a folder of the code that it was measured with.

    Args:
        folder: results of other code lie beside, in folders of their own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / _digest()

    def path(self, cell: Cell) -> Path:
        return self.folder / f"{re.sub('[^a-z0-9]+', '-', cell.title.lower())}.json"

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """What was measured; None where nothing was."""
        path = self.path(cell)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write(self, cell: Cell, found: dict[str, Any]) -> None:
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)

    def missing(self, wanted: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in wanted if not self.path(cell).is_file()]


def _digest() -> str:
    """Of all code that a cell's result depends on."""
    modules = ("rollout.vllm_models", "rollout.receiver", "rollout.plugin", "trainer.learner.learner")
    modules += ("trainer.learner.sender", "rollout.client", "rollout.serve", "timepro.tiny.build")
    files = [*import_closure(*modules), *Path(__file__).parent.glob("*.py")]
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:12]
