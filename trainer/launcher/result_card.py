"""The card of a run's result: what its settings, data and evaluations say, written into its checkpoint folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from timepro import __version__
from timepro.card import Card, read_card, write_card
from timepro.checks.limits import ModelLimits
from timepro.config import by_key
from timepro.data.manifest import iter_manifest
from timepro.families import family_of
from timepro.metrics.bootstrap import bootstrap_interval
from timepro.run_settings import portable_settings
from timepro.runs import classes_of, read_identity, read_summary
from timepro.tasks.registry import spec_of
from timepro.tasks.samples import task_weights
from trainer.launcher.summary import load_evaluations
from trainer.settings.data import SPLITS
from trainer.settings.experiment import ExperimentConfig


def write_result_card(config: ExperimentConfig, run: Path, manifests: Mapping[str, Path]) -> None:
    """Write the card of `run/checkpoint`; does nothing for a run that has none, which trains nothing.

    Args:
        manifests: by split.
    """
    folder = run / "checkpoint"
    if not (folder / "config.json").is_file():
        return
    start = read_card(config.model.path) if config.model.path else None
    tasks = dict.fromkeys([*(start.tasks if start else ()), *map(spec_of, task_weights(config.task))])
    classes = sorted({*(start.classes if start else ()), *classes_of(run)})
    identity, summary = read_identity(run), read_summary(run)
    made = {
        "started": identity.get("started", ""), "commit": identity.get("commit", ""), "timepro": __version__,
        "seed": config.seed, "data seed": config.data.seed, "seconds": summary.get("stages", {}),
    }  # fmt: skip
    what = "a tiny random" if config.model.tiny.from_scratch else "the shipped small"
    base = Path(config.model.path).name if config.model.path else f"{what} {family_of(folder).name}"
    card = Card(
        config.name, family_of(folder).name, base, tuple(tasks), tuple(classes), made,
        {split: _about(manifests[split]) for split in SPLITS}, portable_settings(by_key(config)),
        _metrics(config, run, manifests["test"]), summary.get("gain", {}),
        str(ModelLimits.of_checkpoint(folder).layout),
    )  # fmt: skip
    write_card(folder, card)


def _about(manifest: Path) -> dict[str, Any]:
    with manifest.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    seconds = [clip.duration for clip in iter_manifest(manifest, check_audio=False)]
    return {
        "name": manifest.name, "clips": len(seconds), "sha256": digest,
        "longest": max(seconds, default=0.0), "median": median(seconds) if seconds else 0.0,
    }  # fmt: skip


def _metrics(config: ExperimentConfig, run: Path, test: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for stage, scored in load_evaluations(config, run, test).items():
        for task, metrics in scored.metrics.items():
            interval = bootstrap_interval(scored.counts(task))[1]
            found.setdefault(stage, {})[task] = {**metrics, "interval": list(interval)}
    return found
