"""vLLM against Hugging Face, cell by cell: the same prompt, the same weights, the same log-probabilities.

    make parity                                             all cells
    python experiments/parity/matrix.py --families qwen2_audio --layouts off on --heads tied --processes 1

Every row is a checkpoint of its own (family, prompt layout, tied or untied head). Its columns are the weights that a
worker answers with: as loaded from the folder, after three updates streamed whole, and, another worker, with streamed
adapters; each for one clip and for two clips of different length in one batch. A cell is the largest difference
between the log-probabilities of sampled answers as the worker returned them and as the published classes of
transformers compute them from the exported checkpoint, teacher-forced; it also holds that prompts have identical token
ids on both sides, and that every greedy answer of the worker is transformers' too. In bfloat16 the differences are
reported, not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from grid import BATCHES, FAMILIES, HEADS, LAYOUTS, WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
TARGET = 1e-4
MOVED = 1e-2  # by how much new weights must change some log p at least, else a column would repeat the one before
CELL_TIMEOUT_S = 600.0


def main() -> int:
    """Print the matrix; 1 where a cell does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--skip-bfloat16", action="store_true", help="leave the rows in bfloat16 out")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="rows side by side (default: 1)")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # one row, in a process of its own
    options = parser.parse_args()
    if options.row:
        from row import run_row

        print(json.dumps(run_row(**json.loads(options.row))), flush=True)
        return 0
    rows = [
        {"family": family, "layout": layout, "head": head, "dtype": "float32"}
        for family in options.families
        for layout in options.layouts
        for head in options.heads
    ]
    if not options.skip_bfloat16:
        rows += [{"family": f, "layout": "on", "head": "untied", "dtype": "bfloat16"} for f in options.families]
    with ThreadPoolExecutor(options.processes) as pool:
        running = [pool.submit(run_apart, row, number, len(rows)) for number, row in enumerate(rows, 1)]
        wait(running, return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
    return report(rows, [row.result() for row in running])


def run_apart(row: dict[str, str], number: int, total: int) -> dict[str, Any]:
    """One row in a process of its own: a process group and a ZeRO-3 engine live as long as their process."""
    print(f"[{number}/{total}] {' '.join(row.values())}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        command = [sys.executable, "-W", "ignore", __file__, "--row", json.dumps(row | {"folder": folder})]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, timeout=CELL_TIMEOUT_S, check=False
        )
    if done.returncode:
        raise SystemExit(f"the row {row} ended with exit code {done.returncode}; its words are above")
    return json.loads(done.stdout.decode().splitlines()[-1])


def report(rows: list[dict[str, str]], results: list[dict[str, Any]]) -> int:
    """The table, and the last line for machines."""
    from rich import box
    from rich.table import Table

    from timepro.tables import print_table

    title = "largest |vLLM - transformers| in log p"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("family", "layout", "head", "dtype", *(f"{w}, {b}" for w in WEIGHTS for b in BATCHES)):
        table.add_column(heading)
    judged, failed = [], []
    for row, cells in zip(rows, results, strict=True):
        shown = []
        for name, cell in cells.items():
            holds = cell["identical"] and cell["max"] <= TARGET and (name.startswith("base") or cell["moved"] > MOVED)
            if row["dtype"] == "float32":
                judged.append(cell["max"])
                if not holds:
                    failed.append(" ".join(row.values()) + f", {name}: {cell}")
                shown.append(f"{cell['max']:.1e}" + ("" if holds else " FAILS"))
            else:
                shown.append(f"{cell['max']:.1e} (mean {cell['mean']:.0e}, 99 % {cell['p99']:.0e})")
        table.add_row(row["family"], row["layout"], row["head"], row["dtype"], *shown)
    print_table(table)
    for line in failed:
        print(f"does not hold: {line}")
    figures: dict[str, Any] = {"cells": len(judged), "largest": max(judged, default=0.0), "failed": len(failed)}
    for row, cells in zip(rows, results, strict=True):
        if row["dtype"] == "bfloat16":
            figures[f"bfloat16 {row['family']}"] = cells
    targets = {"largest": TARGET, "failed": 0}
    print(json.dumps({"benchmark": "parity", "figures": figures, "targets": targets, "holds": not failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
