"""Waiting for vLLM: what it is doing, how long it has taken, and how long it took the last time."""

from __future__ import annotations

import json
import time
from pathlib import Path

from timepro.progress import ProgressBar
from timepro.system.files import write_json
from trainer.launcher.workers import Fleet

STARTS_FILE = "vllm_starts.json"  # in the folder of kept stages


def wait_for_vllm(workers: Fleet, cache: Path, what: str) -> None:
    """Wait until all workers serve, and show what they are doing.

    Args:
        cache: the folder that keeps how long starts took.
        what: is started: a checkpoint, and how many workers.

    Raises:
        RuntimeError: a worker did not come up.
    """
    path, started = cache / STARTS_FILE, time.monotonic()
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    last = round(known.get(what, 0.0))
    with ProgressBar(f"starting vLLM{f', {last} s last time' if last else ''}", last, "s") as bar:

        def show() -> None:
            bar.advance(int(time.monotonic() - started) - bar.done, note=workers.phase())

        workers.wait(show)
        bar.note = "ready"
    write_json(path, known | {what: time.monotonic() - started}, indent=1)
