"""From a run's folder to a kept result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timepro.conditions import conditions_of
from timepro.data.soundbank.layout import read_layout
from timepro.errors import error_report, plain_report
from timepro.names import require_run
from timepro.results.files import Result, count_tasks, result_path, write_result
from timepro.results.tables import write_page
from timepro.run_settings import portable_settings
from timepro.runs import STAGES, Evaluated, read_evaluation, read_identity, read_settings, read_summary
from timepro.sweeps import SEED, Sweep, Trial, expand, naming_words, trial_name


@dataclass(frozen=True)
class Place:
    """What a run is in a study.

    Args:
        results: the folder of results.
        sweep, trial, arm, position: as in `Result`.
    """

    results: Path
    sweep: str
    trial: str
    arm: str
    position: int

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        return result_path(self.results, self.sweep, self.trial)


def results_folder(sweep: Sweep) -> Path:
    """Where a sweep's results are kept: `results/` beside the folder `sweeps/` of its file, or beside the file."""
    folder = sweep.path.parent
    return (folder.parent if folder.name == "sweeps" else folder) / "results"


def place_of(sweep: Sweep, words: Sequence[str]) -> Place:
    """A trial's place in its sweep.

    Args:
        words: the `key=value` words of its command.
    """
    naming = naming_words(words, sweep)
    shared = [word for word in naming if not word.startswith(f"{SEED}=")]
    arms = list(dict.fromkeys(_varying(sweep, trial.arguments) for trial in _trials(sweep)))
    own = _varying(sweep, words)
    position = arms.index(own) if own in arms else len(arms)
    return Place(
        results_folder(sweep), sweep.name, trial_name(naming), trial_name(shared) if shared else sweep.name, position
    )


def _trials(sweep: Sweep) -> list[Trial]:
    try:
        return expand(sweep)
    except ValueError:  # W&B's server draws them
        return []


def _varying(sweep: Sweep, words: Sequence[str]) -> frozenset[str]:
    """Those words that say which arm of the sweep's file it is."""
    keys = sweep.raw["parameters"].keys() - sweep.constant - {SEED}
    return frozenset(word for word in words if word.partition("=")[0] in keys)


def keep_run(run: Path, place: Place) -> Path:
    """Write a finished run's result, and the tables of the page beside the results; returns the result's file.

    Raises:
        ValueError: a run that is not finished, or files that cannot be read or written.
    """
    try:
        path = write_result(result_of_run(run, place), place.results)
        write_page(place.results)
    except OSError as error:
        raise ValueError(f"{place.file}: the result of {run} cannot be kept: {error}") from error
    return path


def result_of_run(run: Path, place: Place) -> Result:
    """A finished run's result, see `keep_run`."""
    require_run(run)
    summary, settings, identity = read_summary(run), read_settings(run), read_identity(run)
    if not summary:
        raise ValueError(f"{run} is not finished: it has no summary.json; end it with --resume first")
    files = [(stage, run / "eval" / f"{stage}.jsonl") for stage in STAGES]
    counts = {stage: count_tasks(read_evaluation(path)) for stage, path in files if path.is_file()}
    if not counts:
        raise ValueError(f"{run} holds no evaluation (eval/*.jsonl), so there is nothing to keep")
    tasks = list(dict.fromkeys(task for stage in counts.values() for task in stage))
    evaluated = summary.get("eval", {})
    return Result(
        sweep=place.sweep, trial=place.trial, arm=place.arm, position=place.position,
        seed=str(settings.get("seed", 0)),
        settings=portable_settings(settings), data=manifest_digests(settings), code=str(identity.get("code", "")),
        commit=str(identity.get("commit", "")), started=str(identity.get("started", "")),
        machine=identity.get("machine", {}), seconds=summary.get("stages", {}),
        peak_memory_gib=float(summary.get("peak_memory_gib", 0.0)), counts=counts,
        # The summary of a run of one task does not name it.
        metrics={stage: {tasks[0]: evaluated[stage]} if len(tasks) == 1 else evaluated[stage] for stage in counts},
        conditions=conditions_of(run), errors=errors_of(run, list(counts)),
    )  # fmt: skip


def errors_of(run: Path, stages: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By stage and task: where answers err (`timepro.errors.error_report`), ready for JSON.

    With it `answer_tokens`: what decoding takes, in tokens an answer in the mean, its end among them; None where the
    run keeps no tokenizer.
    """
    tokenizer = run / "checkpoint" / "tokenizer.json"
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in stages:
        lines = read_evaluation(run / "eval" / f"{stage}.jsonl")
        for task in dict.fromkeys(line.task for line in lines):
            own = [line for line in lines if line.task == task]
            report = plain_report(error_report(own)) | {"answer_tokens": _mean_tokens(tokenizer, own)}
            found.setdefault(stage, {})[task] = report
    return found


def _mean_tokens(tokenizer: Path, lines: Sequence[Evaluated]) -> float | None:
    if not tokenizer.is_file():
        return None
    from tokenizers import Tokenizer

    encoded = Tokenizer.from_file(str(tokenizer)).encode_batch([line.text for line in lines], add_special_tokens=False)
    return sum(len(one.ids) + 1 for one in encoded) / len(lines)


def manifest_digests(settings: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each manifest that settings name and that is there, by split; and a digest of the sound bank."""
    found = {}
    for split in ("sft", "rl", "validation", "test"):
        path = (settings.get("data") or {}).get(split)
        if path and Path(path).is_file():
            with Path(path).open("rb") as file:
                found[split] = hashlib.file_digest(file, "sha256").hexdigest()
    bank = (settings.get("data") or {}).get("soundbank")
    if bank and Path(bank).is_dir():
        found["soundbank"] = read_layout(Path(bank), settings["data"]["bank"]["classes"]).key(times=False)
    return found
