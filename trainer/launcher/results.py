"""Kept results beside a sweep's trials: which of them stand for a trial, and keeping those that are finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from timepro.config import by_key, load_resolved
from timepro.config.structured import build
from timepro.results.files import Result, read_result
from timepro.results.keep import Place, keep_run, manifest_digests, place_of
from timepro.run_settings import portable_settings
from timepro.sweeps import PLACES, Sweep, expand
from trainer.launcher.console import console
from trainer.launcher.runfolder import changes
from trainer.launcher.trials import trial_configs
from trainer.settings.experiment import ExperimentConfig


def kept_result(place: Place, config: ExperimentConfig) -> Result | None:
    """The kept result that stands for a trial; None where there is none, or one of other settings, which is said.

    Raises:
        ValueError: its file cannot be read.
    """
    if not place.file.is_file():
        return None
    result = read_result(place.file)
    why = difference_of(result, config)
    if why:
        console.print(f"[bold]{escape(place.trial)}[/]  its kept result does not count: it is of {escape(why)}")
    return None if why else result


def difference_of(result: Result, config: ExperimentConfig) -> str:
    """In what a kept result's settings or data are not a configuration's; empty where they agree.

    A setting that is newer than the result counts as its default. Where a run takes place plays no part.
    """
    try:
        before = portable_settings(by_key(build(ExperimentConfig, result.settings)))
    except ValueError as error:
        return f"another version ({error})"
    now = portable_settings(by_key(config))
    if differ := _differing(before, now):
        return f"other settings, {', '.join(differ[:5])}"
    manifests = manifest_digests(by_key(config))
    others = [split for split, digest in manifests.items() if result.data.get(split, digest) != digest]
    return f"other data ({', '.join(f'data.{split}' for split in others)})" if others else ""


def keep_trial(sweep: Sweep, words: Sequence[str], run: Path) -> Path:
    """Keep a finished trial's result.

    Args:
        words: the `key=value` words of its command.

    Raises:
        ValueError: as `keep_run`.
    """
    path = keep_run(run, place_of(sweep, words))
    console.print(f"[bold]kept[/]  {escape(str(path))}")
    return path


def trial_of(sweep: Sweep, run: Path, folders: Sequence[Path]) -> Place:
    """The trial of a sweep whose settings a run has.

    Args:
        folders: of experiments.

    Raises:
        ValueError: none has, with what is nearest.
    """
    config = load_resolved(run / "config.yaml", ExperimentConfig)
    trials = expand(sweep)
    near: tuple[list[str], str] | None = None
    for trial, other in zip(trials, trial_configs(sweep, trials, run.parent, [], folders), strict=True):
        differ = _differing(portable_settings(by_key(config)), portable_settings(by_key(other)))
        place = place_of(sweep, trial.arguments)
        if not differ:
            return place
        near = min(near or (differ, place.trial), (differ, place.trial), key=lambda found: len(found[0]))
    if near is None:
        raise ValueError(f"{sweep.path} is not a sweep of `timepro train`, so no run is a trial of it")
    raise ValueError(
        f"{run} has the settings of no trial of {sweep.path}; the nearest, {near[1]}, differs in "
        f"{', '.join(near[0][:5])}; give --sweep another name to keep it as a run of a study by hand"
    )


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ, but for those that say where a run takes place."""
    differ = sorted(change for change in changes(before, now) if change[0].split(".")[0] not in PLACES)
    return [f"{key}={old} (now {new})" for key, old, new in differ]
