"""What a run's folder holds, for drawing and comparing runs: evaluations, summary, training curves, classes.

Paths that a run's files record are relative to its folder, so that a run can be moved or copied together with its data.
A run moved alone finds its data from the place where it was made, which `run.json` keeps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from timepro.data.manifest import iter_manifest
from timepro.events import Event, ParsedAnswer
from timepro.feature_cache import CachePlace
from timepro.hints import command
from timepro.metrics.bootstrap import micro_f1
from timepro.names import near, require_run
from timepro.system.files import replacing
from timepro.tasks import find_task
from timepro.tasks.registry import recorded_task
from timepro.tasks.samples import class_labels, task_weights

STAGES = {"sft": "SFT", "control": "SFT continued", "grpo": "after GRPO"}  # in the order of the training; as shown
IDENTITY, CLASSES = "run.json", "classes.json"

# Samples, each with what stands for its reference, and (N, 3) rows of `Task.counts`.
Counts = tuple[Sequence[tuple[str, int | str]], np.ndarray]


@dataclass(frozen=True)
class Evaluated:
    """One line of an evaluation: a sample's reference and a model's answer to it."""

    id: str
    task: str
    question: str
    audio: Path
    duration: float
    reference: tuple[Event, ...]
    text: str
    answer: ParsedAnswer


def path_in(run: Path, path: Path) -> str:
    """A path as the run's files record it: relative to the run's folder."""
    path = Path(path)
    # The folders are resolved, since ".." would lead elsewhere behind a link; the file's own name is kept.
    return os.path.relpath(os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(run))


def path_from(run: Path, recorded: str) -> Path:
    """Where a path that the run's files record lies now; where it would lie, if it is gone."""
    here = Path(os.path.normpath(os.path.join(os.path.realpath(run), recorded)))
    if here.exists():
        return here
    there = Path(os.path.normpath(os.path.join(_home(run), recorded)))
    return there if there.exists() else here


def _home(run: Path) -> str:
    """The folder that the run was made in; runs of older versions do not say."""
    return str(read_identity(run).get("home", ""))


def read_identity(run: Path) -> dict[str, Any]:
    """A run's `run.json`: `wandb_id`, `home`, `started`, `commit`, `code`, `machine`, `start`; empty without one."""
    path = run / IDENTITY
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def read_evaluation(path: Path) -> list[Evaluated]:
    """The lines of a run's `eval/STAGE.jsonl`. Their tasks are then known by name in this process.

    Raises:
        ValueError: a line that cannot be read, by file and line.
    """
    run, found = path.parent.parent, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
            task = recorded_task(raw).name
            found.append(
                Evaluated(
                    raw["id"], task, raw.get("question", ""), path_from(run, raw.get("audio", "")),
                    float(raw.get("duration", 0.0)), tuple(Event(**e) for e in raw["reference"]),
                    raw.get("answer", ""),
                    ParsedAnswer([Event(**e) for e in raw["events"]], bool(raw["ok"]), tuple(raw.get("repairs", ()))),
                )
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}:{number}: not a line of an evaluation ({type(error).__name__}: {error})"
            ) from error
    return found


def read_counts(path: Path) -> dict[str, Counts]:
    """By task: its samples, and what their answers count for the task's main metric (`Task.counts`).

    A sample is its id and a number, within this process, of its reference: made test sets call their clips alike.
    """
    lines = read_evaluation(path)
    found: dict[str, Counts] = {}
    for task in dict.fromkeys(line.task for line in lines):
        own = [line for line in lines if line.task == task]
        counts = find_task(task).counts([line.reference for line in own], [line.answer for line in own])
        found[task] = ([(line.id, hash(tuple(sorted(line.reference)))) for line in own], counts)
    return found


def stages_of(run: Path) -> list[str]:
    """The stages that a run has evaluated, in the order of the training.

    Raises:
        ValueError: no run's folder, or one without an evaluation.
    """
    found = [stage for stage in STAGES if (run / "eval" / f"{stage}.jsonl").is_file()]
    if not found:
        require_run(run)
        raise ValueError(f"{run} has no evaluation yet (eval/*.jsonl); name the folder of a finished run")
    return found


def classes_of(run: Path) -> list[str]:
    """All classes of a run, in alphabetical order; empty where it detects no events of a closed set.

    A run's `classes.json` lists them; one of an older version has those of its test set.
    """
    path = run / CLASSES
    if path.is_file():
        return list(json.loads(path.read_text(encoding="utf-8")))
    lines = [line for stage in STAGES for line in _lines_of(run, stage) if find_task(line.task).labels_are_classes]
    return sorted({event.label for line in lines for event in line.reference})


def record_classes(run: Path, manifests: Iterable[Path], tasks: Iterable[str]) -> None:
    """Write `classes.json`: the classes of all data that a run trains and is tested on, by its tasks."""
    clips = (clip for path in set(manifests) for clip in iter_manifest(path, check_audio=False))
    labels = class_labels(clips, tasks)
    with replacing(run / CLASSES) as out:
        out.write(json.dumps(sorted(labels), ensure_ascii=False))


def _lines_of(run: Path, stage: str) -> list[Evaluated]:
    path = run / "eval" / f"{stage}.jsonl"
    return read_evaluation(path) if path.is_file() else []


def run_names(runs: Sequence[Path]) -> dict[Path, str]:
    """A name for each run: its folder's, or its path where two folders have the same."""
    names = [run.resolve().name for run in runs]
    return {run: name if names.count(name) == 1 else str(run) for run, name in zip(runs, names, strict=True)}


def run_title(run: Path) -> str:
    """A run's name and seed."""
    seed = read_settings(run).get("seed")
    return run.resolve().name + ("" if seed is None else f", seed {seed}")


def headline(run: Path) -> str:
    """A run's name, seed and, once it is evaluated, its scores."""
    stages = [stage for stage in STAGES if (run / "eval" / f"{stage}.jsonl").is_file()]
    return ": ".join(filter(None, (run_title(run), score_line(run, stages))))


def read_settings(run: Path) -> dict[str, Any]:
    """The run's resolved configuration, `config.yaml`; empty where there is none."""
    path = run / "config.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def kept_features(checkpoint: Path) -> CachePlace | None:
    """Where the run that a checkpoint belongs to keeps features of clips; None for a checkpoint of no run."""
    for run in checkpoint.resolve().parents:
        if (run / IDENTITY).is_file():
            settings = read_settings(run).get("data", {}).get("feature_cache")  # of older versions: none
            folder = settings and (settings["folder"] or run.parent / "cache" / "features")
            return CachePlace(str(Path(folder).expanduser().resolve()), settings["gigabytes"]) if settings else None
    return None


def main_scores(run: Path, stages: Sequence[str]) -> dict[str, dict[str, float]]:
    """The main metric on the test set, by task and stage."""
    found: dict[str, dict[str, float]] = {}
    for stage in stages:
        for task, (_, counts) in read_counts(run / "eval" / f"{stage}.jsonl").items():
            found.setdefault(task, {})[stage] = float(micro_f1(counts.sum(axis=0)))
    return found


def score_line(run: Path, stages: Sequence[str]) -> str:
    """The scores of some stages in words, as pictures have them below their title."""
    parts = []
    for task, scores in main_scores(run, stages).items():
        values = ", ".join(f"{STAGES[stage]} {value:.3f}" for stage, value in scores.items())
        parts.append(f"{find_task(task).main_heading} ({task}): {values}")
    return "; ".join(parts)


def read_summary(run: Path) -> dict[str, Any]:
    """`summary.json`, or nothing where the run has none yet."""
    path = run / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


CURVES = {  # what is drawn unless something else is asked for -> its heading
    "reward": "reward",
    "entropy": "entropy",
    "completions/mean_length": "answer length (tokens)",
    "frac_reward_zero_std": "groups without spread",
    "grad_norm": "gradient norm",
    "kl": "KL to the reference",
}
_VALIDATION = "eval/validation/"
Curve = list[tuple[int, float]]  # (step, value)


def validation_curves(run: Path) -> dict[str, str]:
    """Metrics that hold the main scores on the validation set over the training, each with its heading."""
    recorded = {key for row in _metric_rows(run) for key in row if key.startswith(_VALIDATION)}
    found = {}
    for key in sorted(recorded):
        *task, metric = key.removeprefix(_VALIDATION).split("/")
        for name in task or task_weights(read_settings(run).get("task", "sed")):
            if find_task(name).main_metric == metric:
                found[key] = f"{find_task(name).main_heading}, validation" + (f" ({name})" if task else "")
    return found


def read_curves(run: Path, keys: Sequence[str], most: int = 300) -> dict[str, Curve]:
    """Training metrics by step, of those keys that the run has; thinned to means over equal stretches."""
    return _thinned(_metric_rows(run), keys, most)


def choose_curves(runs: Sequence[Path], keys: Sequence[str] | None) -> tuple[dict[str, dict[str, Curve]], list[str]]:
    """Training metrics of several runs.

    Args:
        keys: the metrics wanted; None for `CURVES` and the main scores on the validation set, as far as they are
            recorded and not 0 throughout.

    Returns:
        curves by name of the run and of the metric, and what is left out, in words.

    Raises:
        ValueError: what is not a run, a metric that no run has recorded (with near names), or nothing to draw.
    """
    for run in runs:
        require_run(run)
    rows = {run: _metric_rows(run) for run in runs}
    notes = [f"{run} has recorded no training metrics (metrics.grpo.jsonl)" for run, own in rows.items() if not own]
    if len(notes) == len(runs):
        raise ValueError("; ".join(notes))
    recorded = {key for own in rows.values() for row in own for key, value in row.items() if _is_number(value)}
    known = sorted(recorded - {"step"})
    if unknown := [key for key in keys or () if key not in known]:
        hints = ", ".join(f"{key}{near(key, known)}" for key in unknown)
        raise ValueError(f"--keys: no run has recorded {hints}; recorded: {', '.join(known)}")
    wanted = keys or list(CURVES | {key: name for run in runs for key, name in validation_curves(run).items()})
    found = {run: _thinned(own, wanted) for run, own in rows.items() if own}
    for key in wanted:
        lacking = [run.name for run, curves in found.items() if key not in curves]
        idle = not keys and not any(value for curves in found.values() for _, value in curves.get(key, ()))
        if idle:
            notes.append(f"{key} is left out: it is {'not recorded' if len(lacking) == len(found) else '0 throughout'}")
            for curves in found.values():
                curves.pop(key, None)
        elif lacking:
            notes.append(f"{key} is not recorded in {', '.join(lacking)}")
    names = run_names(list(found))
    return {names[run]: curves for run, curves in found.items()}, notes


def last_step(run: Path) -> int:
    """GRPO's last step that is recorded; 0 before the first."""
    rows = _metric_rows(run)
    return max((int(row["step"]) for row in rows), default=0)


def _metric_rows(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.grpo.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be in the making, or cut off


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _thinned(rows: Sequence[dict[str, Any]], keys: Sequence[str], most: int = 300) -> dict[str, Curve]:
    curves = {}
    for key in keys:
        points = [(int(row["step"]), float(row[key])) for row in rows if _is_number(row.get(key))]
        if points:
            width = -(-len(points) // most)
            parts = [points[i : i + width] for i in range(0, len(points), width)]
            curves[key] = [(part[-1][0], float(np.mean([value for _, value in part]))) for part in parts]
    return curves


def newest_checkpoint(runs: Path) -> Path:
    """The checkpoint of the run that finished last.

    Raises:
        ValueError: no run has finished.
    """
    found, others = [], 0
    for folder, below, files in os.walk(runs):
        if "config.yaml" not in files:
            continue
        below.clear()  # a run holds no other run
        run = Path(folder)
        if (run / "summary.json").is_file() and (run / "checkpoint" / "config.json").is_file():
            found.append(((run / "summary.json").stat().st_mtime, run / "checkpoint"))
        else:
            others += 1
    if not found:
        unfinished = f" ({others:,} without an end or a checkpoint)" if others else ""
        raise ValueError(
            f"there is no finished run below {runs}/{unfinished}; name a checkpoint with --checkpoint FOLDER, or train "
            f"one: {command('train sed_grpo')}"
        )
    return max(found)[1]
