"""vLLM against Hugging Face, cell by cell: the same prompt, the same weights, the same log-probabilities.

    make parity                                             all cells
    python experiments/parity/matrix.py --minutes 7         as many as start within 7 minutes; again for the others
    python experiments/parity/matrix.py --families qwen2_audio --layouts off on --heads tied

A row is a family, an output head (tied or not) and a prompt layout. Its columns are the weights that a worker answers
with: as loaded from the folder, after three updates streamed whole, and, another worker, with streamed adapters; each
for one clip and for two clips of different length in one batch. A cell is the differences between the log-probabilities
of sampled answers as the worker returned them and as the published classes of transformers compute them from the
exported checkpoint, teacher-forced; it also holds that prompts have identical token ids on both sides, and that every
greedy answer of the worker is transformers' too. In bfloat16 the differences are reported, not judged.

The rows of a family and head share two workers, but for those of another timestamp vocabulary. What is measured is kept
in `runs/parity/`, in a folder by a digest of the code, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from grid import FAMILIES, HEADS, LAYOUTS, Cell, Group, Results, cells
from table import report

ROOT = Path(__file__).resolve().parents[2]
GROUP_TIMEOUT_S = 900.0


def main() -> int:
    """Print the matrix; 1 where a cell does not hold, 2 where some are left to be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--skip-bfloat16", action="store_true", help="leave the rows in bfloat16 out")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no more workers after so long")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "parity", metavar="FOLDER")
    parser.add_argument("--format", choices=("text", "markdown"), default="text")
    parser.add_argument("--group", help=argparse.SUPPRESS)  # cells of one, in a process of their own
    options = parser.parse_args()
    results = Results(options.results)
    if options.group:
        measure(json.loads(options.group), results)
    wanted = cells(options.families, options.layouts, options.heads, not options.skip_bfloat16)
    started = time.monotonic()
    for group in dict.fromkeys(cell.group for cell in wanted):
        left = results.missing([cell for cell in wanted if cell.group == group])
        if left and time.monotonic() - started < 60 * options.minutes:
            run_apart(group, left, options.results)
    if left := results.missing(wanted):
        print(f"{len(left)} of {len(wanted)} cells are left; run this again for them")
        return 2
    return report({cell: results.read(cell) or {} for cell in wanted}, options.format)


def run_apart(group: Group, left: Sequence[Cell], results: Path) -> None:
    """Cells of a group in a process of their own: a process group and a ZeRO-3 engine live as long as their process."""
    print(f"{' '.join(asdict(group).values())}: {len(left)} cells", file=sys.stderr, flush=True)
    given = {"group": asdict(group), "cells": [[cell.layout, cell.weights, cell.batch] for cell in left]}
    command = [sys.executable, "-W", "ignore", __file__, "--results", str(results), "--group", json.dumps(given)]
    paths = (ROOT, ROOT / "tests", Path(__file__).parent)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=GROUP_TIMEOUT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{group} ended with exit code {done.returncode}; its words are above")
    print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def measure(given: dict[str, dict[str, str] | list[list[str]]], results: Results) -> NoReturn:
    """The process's own part, which ends it."""
    from group import GroupRun

    from trainer.learner import distributed

    group = Group(**dict(given["group"]))
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        GroupRun(group, Path(folder), results).run([Cell(group, *rest) for rest in given["cells"]])
    distributed.leave(0)


if __name__ == "__main__":
    sys.exit(main())
