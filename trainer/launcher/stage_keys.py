"""What names a kept stage: its settings, the results it builds on, and the code that makes it.

The code is the import closure of the modules that do the work, so that a change to any file that could change a result
makes another one. What the launcher, the workers and the pictures are made of is not in it, apart from the few modules
that the learner or the settings share with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from timepro.data.soundbank.layout import read_layout
from timepro.families.registry import outside_sources
from timepro.system.source import import_closure
from timepro.tasks.registry import source_of
from timepro.tiny.base import base_folder
from timepro.tiny.config import TinyModelConfig
from trainer.settings.experiment import ExperimentConfig

# What makes each stage. Families and tasks are found by name at run time, so no import leads to them; what a tiny model
# reads of a task is among its inputs.
MADE_BY = {
    "data": ("timepro.data.synth", "timepro.data.soundbank"),
    "model": ("timepro.tiny", "timepro.families"),
    "sft": ("trainer.learner.sft_job", "timepro.families", "timepro.tasks"),
}


def digest(inputs: Mapping[str, Any], sources: Iterable[Path]) -> str:
    """A short name for what is made of inputs (JSON-ready) by code (files, or folders of it)."""
    h = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode())
    for source in sources:
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            h.update(path.read_bytes())
    return h.hexdigest()[:12]


def data_key(config: ExperimentConfig, split: str) -> str:
    """Of a split that is made here."""
    data = config.data
    inputs = {"soundscape": asdict(data.soundscape), "n": getattr(data, f"{split}_clips"), "seed": data.seed}
    if data.soundbank:
        folder = Path(data.soundbank)
        inputs["bank"] = [str(folder.resolve()), read_layout(folder, data.bank.classes).key(), asdict(data.bank)]
    return digest(inputs, import_closure(*MADE_BY["data"]))


def model_key(tiny: TinyModelConfig, labels: Sequence[str], texts: Sequence[str]) -> str:
    """Of a tiny checkpoint: built on the shipped base, or from scratch."""
    inputs = {"tiny": asdict(tiny), "labels": list(labels), "texts": list(texts)}
    if not tiny.from_scratch:
        files = sorted(path for path in base_folder(tiny).iterdir() if path.is_file())
        inputs = {"tiny": asdict(tiny), "base": {path.name: file_key(path) for path in files}}
        return digest(inputs, import_closure("timepro.tiny.base", "timepro.init_model", "timepro.families"))
    return digest(inputs, [*import_closure(*MADE_BY["model"]), *outside_sources()])


def sft_key(inputs: Mapping[str, Any], tasks: Iterable[str]) -> str:
    """Of a fine-tuned checkpoint; tasks and families from outside this project bring their own files."""
    own = [file for task in tasks if (file := source_of(task)) is not None]
    return digest(inputs, [*import_closure(*MADE_BY["sft"]), *own, *outside_sources()])


def folder_key(folder: Path) -> str:
    """Of a checkpoint that was given: its place, and its weight files' sizes and times."""
    weights = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(folder.glob("*.safetensors"))]
    return digest({"path": str(folder.resolve()), "weights": weights}, [])


def file_key(path: Path) -> str:
    """Of a manifest or another file: its content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
