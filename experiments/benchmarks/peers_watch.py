"""Runs one system's command on given cores, and measures its memory; the arithmetic of a run's figures."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from peers_task import ANSWERS, PROMPTS, reached_at

POLL_S = 0.25
MEMORY_EVERY_S = 2.0  # reading it costs some milliseconds a process
_END_S = 30.0


class Failed(RuntimeError):
    """A system's command failed, or took too long; says why."""


def watched(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    cores: Sequence[int],
    limit_s: float,
    seen: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Run a command to its end.

    Args:
        seen: called four times a second.

    Returns:
        when it was started, and the most memory its processes took together, MiB (pages that several share count once).

    Raises:
        Failed: with the end of its log.
    """
    peak, next_look, started = 0.0, 0.0, time.time()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
    try:
        while process.poll() is None:
            if time.time() - started > limit_s:
                raise Failed(f"not done within {limit_s:g} s; its log is {log}")
            if time.time() >= next_look:
                peak, next_look = max(peak, memory_mib(process.pid)), time.time() + MEMORY_EVERY_S
            seen()
            time.sleep(POLL_S)
    finally:
        end(process)
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Failed(f"exit code {process.returncode}: {' | '.join(lines[-3:])[-600:]} (its log is {log})")
    return started, peak


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started."""
    if process.poll() is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        if child.is_running():
            child.kill()


def memory_mib(pid: int) -> float:
    """Proportional memory (PSS) of a process and all below it, MiB."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 2**20


def figures_of(run: Mapping[str, Any]) -> dict[str, float]:
    """A run's figures; the first step, in which every system loads and compiles this and that, is told apart.

    Args:
        run: `started` and `peak_mib` of `watched`; `began`, `ends`, `rewards` and `tokens` of its steps.
    """
    ends, began = run["ends"], run["began"]
    seconds = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return {
        "samples_s": PROMPTS * ANSWERS * len(seconds) / (ends[-1] - ends[0]),
        "step_s": statistics.median(seconds),
        "first_step_s": ends[0] - began,
        "start_s": began - run["started"],
        "peak_mib": run["peak_mib"],
        "answer_tokens": statistics.mean(run["tokens"]),
    }


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each figure over repeats, and the range of the samples a second."""
    found = [figures_of(run) for run in runs]
    middle = {name: round(statistics.median(one[name] for one in found), 2) for name in found[0]}
    speeds = [round(one["samples_s"], 2) for one in found]
    return {**middle, "samples_s_least": min(speeds), "samples_s_most": max(speeds)}


def later_epochs(run: Mapping[str, Any], epoch: int) -> dict[str, float]:
    """Samples a second behind a run's first `epoch` steps, in which every clip is new; nothing if it ends there."""
    ends = run["ends"][epoch - 1 :]
    if len(ends) < 2:
        return {}
    return {"later_samples_s": round(PROMPTS * ANSWERS * (len(ends) - 1) / (ends[-1] - ends[0]), 2)}


def time_to(run: Mapping[str, Any], reward: float) -> dict[str, float | None]:
    """Steps and seconds until a mean reward: from the command's start, and of training; None: not in this run."""
    steps, last = reached_at(run["rewards"], reward), round(statistics.mean(run["rewards"][-5:]), 3)
    found: dict[str, float | None] = {"wanted": reward, "first": round(run["rewards"][0], 3), "last": last}
    if steps is None:
        taken = round(run["ends"][-1] - run["began"], 1)
        return found | {
            "steps": None,
            "seconds": None,
            "gave_up_after_steps": len(run["ends"]),
            "gave_up_after_s": taken,
        }
    end_s = run["ends"][steps - 1]
    return found | {
        "steps": steps,
        "training_s": round(end_s - run["began"], 1),
        "seconds": round(end_s - run["started"], 1),
    }
