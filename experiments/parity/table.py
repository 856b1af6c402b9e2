"""The parity matrix as a table, and whether it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from grid import BATCHES, WEIGHTS, Cell
from rich import box
from rich.table import Table

from timepro.tables import print_table

TARGET = 1e-4
MOVED = 1e-2  # by how much new weights must change some log p at least, else a column would repeat the one before


def holds(cell: Cell, found: Mapping[str, Any]) -> bool:
    """Whether a cell in float32 is as it must be."""
    changed = cell.weights == "base" or found["moved"] > MOVED
    return bool(found["identical"] and max(found["differences"]) <= TARGET and changed)


def report(results: Mapping[Cell, dict[str, Any]], form: str) -> int:
    """Print the tables and a line for machines; 1 where a cell does not hold."""
    exact = {cell: found for cell, found in results.items() if cell.group.dtype == "float32"}
    rounded = {cell: found for cell, found in results.items() if cell.group.dtype == "bfloat16"}
    print_table(_largest(exact), form)
    if rounded:
        print_table(_distributions(rounded), form)
    failed = [cell for cell, found in exact.items() if not holds(cell, found)]
    for cell in failed:
        values = {key: exact[cell][key] for key in ("identical", "moved")}
        print(f"does not hold: {cell.title}: largest {max(exact[cell]['differences']):.1e}, {values}")
    largest = max((max(found["differences"]) for found in exact.values()), default=0.0)
    figures: dict[str, Any] = {"cells": len(exact), "largest": largest, "failed": len(failed)}
    for family in dict.fromkeys(cell.group.family for cell in rounded):
        own = [found for cell, found in rounded.items() if cell.group.family == family]
        figures[f"bfloat16 {family}"] = spread([d for found in own for d in found["differences"]])
    targets = {"largest": TARGET, "failed": 0}
    print(json.dumps({"benchmark": "parity", "figures": figures, "targets": targets, "holds": not failed}))
    return 1 if failed else 0


def spread(differences: list[float]) -> dict[str, float]:
    """A distribution in numbers."""
    values = np.array(differences)
    median, most = np.quantile(values, [0.5, 0.95])
    return {"tokens": len(values), "median": float(median), "95 %": float(most), "max": float(values.max())}


def _table(title: str, headings: list[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    return table


def _largest(exact: Mapping[Cell, dict[str, Any]]) -> Table:
    """A row a family, head and layout; a column the weights and the batch."""
    columns = [(weights, batch) for weights in WEIGHTS for batch in BATCHES]
    headings = ["family", "head", "layout", *(", ".join(column) for column in columns)]
    table = _table("largest |vLLM - transformers| in log p, float32", headings)
    for group, layout in dict.fromkeys((cell.group, cell.layout) for cell in exact):
        shown = []
        for weights, batch in columns:
            cell = Cell(group, layout, weights, batch)
            largest = f"{max(exact[cell]['differences']):.1e}"
            shown.append(largest + ("" if holds(cell, exact[cell]) else " FAILS"))
        table.add_row(group.family, group.head, layout, *shown)
    return table


def _distributions(rounded: Mapping[Cell, dict[str, Any]]) -> Table:
    """A row a family and layout, batches together; a column the weights."""
    title = "|vLLM - transformers| in log p, bfloat16: median / 95 % / largest"
    table = _table(title, ["family", "layout", *WEIGHTS, "tokens"])
    for group, layout in dict.fromkeys((cell.group, cell.layout) for cell in rounded):
        shown, tokens = [], 0
        for weights in WEIGHTS:
            own = [rounded[Cell(group, layout, weights, batch)]["differences"] for batch in BATCHES]
            found = spread([difference for some in own for difference in some])
            shown.append(f"{found['median']:.1e} / {found['95 %']:.1e} / {found['max']:.1e}")
            tokens += int(found["tokens"])
        table.add_row(group.family, layout, *shown, str(tokens))
    return table
