"""A finished trial as a file: `experiments/results/SWEEP/TRIAL.json`.

It holds what a table needs and what says where the numbers come from: settings, digests of settings and code, machine,
seconds, metrics, per test sample what the main metric counts, so that trials of different days and machines are
compared sample by sample, what answers in other conditions are worth, and where answers err. No weights, no audio, no
answers; about 20 KB for 2,048 clips and three stages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from timepro.runs import STAGES, Evaluated
from timepro.system.files import write_text
from timepro.tasks import find_task
from timepro.tasks.samples import task_weights

_VERSION = 1
_KINDS = ("<i2", "<f8")
_ADDED = ("conditions", "errors")  # which files of older versions lack


@dataclass(frozen=True)
class TaskCounts:
    """What a stage's answers to one task count (`timepro.tasks.Task.counts`).

    Args:
        samples, references: digests of the samples' ids, and of their right answers.
        rows: (N, 3).
    """

    samples: str
    references: str
    rows: np.ndarray


@dataclass(frozen=True)
class Result:
    """One finished trial.

    Args:
        sweep: the study that it belongs to.
        trial: its name in the sweep, and its file's.
        arm: what its settings are called without the seed.
        position: of the arm in the sweep, for the order of tables.
        settings: the resolved configuration without places; files by their names alone.
        data: SHA-256 of each manifest that the settings name, by split.
        code: digest of the code that it was made by (`timepro.results.code`).
        machine: as `this_machine` gives it.
        seconds: of each stage; 0 where the stage was kept from another run.
        metrics: by stage and task.
        counts: by stage and task.
        conditions: by stage, task and kind (`timepro.conditions`); empty where nothing was asked again.
        errors: by stage and task (`timepro.errors`), with `answer_tokens`, what decoding an answer takes; empty in a
            file of an older version.
    """

    sweep: str
    trial: str
    arm: str
    seed: str
    position: int
    settings: Mapping[str, Any]
    data: Mapping[str, str]
    code: str
    commit: str
    started: str
    machine: Mapping[str, Any]
    seconds: Mapping[str, float]
    peak_memory_gib: float
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]
    counts: Mapping[str, Mapping[str, TaskCounts]]
    conditions: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)


def result_path(results: Path, sweep: str, trial: str) -> Path:
    """Where a trial's result is kept."""
    return results / sweep.replace("/", "--") / f"{trial}.json"


def settings_digest(settings: Mapping[str, Any]) -> str:
    """A short name for a trial's settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def count_tasks(lines: Sequence[Evaluated]) -> dict[str, TaskCounts]:
    """What the lines of an evaluation count, by task."""
    found = {}
    for task in dict.fromkeys(line.task for line in lines):
        own = [line for line in lines if line.task == task]
        rows = find_task(task).counts([line.reference for line in own], [line.answer for line in own])
        references = [sorted((event.onset, event.offset, event.label) for event in line.reference) for line in own]
        found[task] = TaskCounts(_digest([line.id for line in own]), _digest(references), rows)
    return found


def write_result(result: Result, results: Path) -> Path:
    """Write a result's file; returns its path."""
    raw = {
        "version": _VERSION,
        **{own.name: getattr(result, own.name) for own in fields(Result)},
        "settings_digest": settings_digest(result.settings),
        "counts": {
            stage: {task: _packed(counts) for task, counts in tasks.items()} for stage, tasks in result.counts.items()
        },
    }
    path = result_path(results, result.sweep, result.trial)
    write_text(path, json.dumps(_finite(raw), indent=1, ensure_ascii=False) + "\n")
    return path


def read_result(path: Path) -> Result:
    """Read what `write_result` wrote.

    Raises:
        ValueError: it cannot be read, is of a later version, or was changed by hand.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("version") != _VERSION:
            raise ValueError("it is of another version of timepro")
        if raw.pop("settings_digest") != settings_digest(raw["settings"]):
            raise ValueError("its settings are not those of its digest, so somebody has changed them")
        raw["counts"] = {
            stage: {task: _unpacked(packed) for task, packed in raw["counts"][stage].items()}
            for stage in STAGES
            if stage in raw["counts"]
        }
        raw = {name: {} for name in _ADDED} | raw
        result = Result(**{own.name: raw[own.name] for own in fields(Result)})
        if path != result_path(path.parents[1], result.sweep, result.trial):
            raise ValueError(f"it says that it is {result.sweep}/{result.trial}.json; give it that name again")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"{path} is not a kept result ({type(error).__name__}: {error}); remove it") from None
    try:
        task_weights(result.settings.get("task", "sed"))  # one of an import path is then known by its short name
    except ValueError as error:
        raise ValueError(f"{path}: {error}; a result is shown where its task can be imported") from None
    return result


def read_results(results: Path, sweep: str | None = None) -> list[Result]:
    """All kept results below a folder, or those of one sweep: by sweep, the arm's position, and seed.

    Raises:
        ValueError: a file that cannot be read.
    """
    found = [read_result(path) for path in sorted(results.glob(f"{'*' if sweep is None else sweep}/*.json"))]
    return sorted(found, key=lambda r: (r.sweep, r.position, r.arm, _by_number(r.seed)))


def _by_number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (0, text)


def _packed(counts: TaskCounts) -> dict[str, Any]:
    """Counts as text: column after column, whole numbers in two bytes, compressed."""
    rows = np.asarray(counts.rows, dtype=np.float64)
    whole = bool((rows == np.rint(rows)).all() and np.abs(rows).max(initial=0) < 2**15)
    kind = _KINDS[0] if whole else _KINDS[1]
    data = np.ascontiguousarray(rows.T).astype(kind).tobytes()
    text = base64.b64encode(zlib.compress(data, 9)).decode()
    return {"samples": counts.samples, "references": counts.references, "n": len(rows), "kind": kind, "rows": text}


def _unpacked(packed: Mapping[str, Any]) -> TaskCounts:
    if packed["kind"] not in _KINDS:
        raise ValueError(f"counts of kind {packed['kind']!r}; there are {', '.join(_KINDS)}")
    data = zlib.decompress(base64.b64decode(packed["rows"], validate=True))
    columns = np.frombuffer(data, dtype=packed["kind"]).reshape(3, int(packed["n"]))
    rows = np.ascontiguousarray(columns.T, dtype=np.float64)  # else sums differ from the run's own in the last digit
    return TaskCounts(packed["samples"], packed["references"], rows)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
