"""The clips that a run makes: of generated sounds, or of the recordings of a sound bank."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timepro.data.soundbank.bank import SoundBank, open_bank
from timepro.data.soundbank.layout import read_layout, spoken
from timepro.data.soundbank.mixing import BankSounds
from timepro.data.sounds import SOUNDS
from timepro.data.synth import write_split
from timepro.progress import ProgressBar
from trainer.settings.data import PART_OF, DataConfig


def write_clips(folder: Path, split: str, count: int, data: DataConfig, cache: Path) -> Mapping[str, Any]:
    """Make the clips of a split in a stage's folder; returns facts about them.

    Args:
        cache: where measurements of a bank's recordings are kept.

    Raises:
        ValueError: a bank that cannot be used.
    """
    shutil.rmtree(folder / split, ignore_errors=True)
    sounds = BankSounds(_bank(data, cache), PART_OF[split]) if data.soundbank else None
    with ProgressBar(f"mixing {split}" if sounds else f"synthesising {split}", count, "clips") as bar:
        write_split(
            folder, split, count, data.seed, data.soundscape, workers=os.cpu_count() or 1,
            progress=lambda done: bar.advance(done - bar.done), sounds=sounds,
        )  # fmt: skip
    return {"clips": count}


def class_words(data: DataConfig) -> tuple[list[str], list[str]]:
    """The labels of the clips that are made, and what is said of them: what a tiny model's tokenizer knows."""
    if not data.soundbank:
        labels = list(data.soundscape.classes)
        return labels, [text for label in labels for text in (SOUNDS[label].spoken, *SOUNDS[label].captions)]
    bank = read_layout(Path(data.soundbank), data.bank.classes)
    return bank.labels, [text for label in bank.labels for text in (spoken(label), *bank.captions[label])]


def _bank(data: DataConfig, cache: Path) -> SoundBank:
    """The bank, measured: a recording is opened once, whatever runs and splits it serves."""
    folder = Path(data.soundbank)
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    total = len(read_layout(folder, data.bank.classes).recordings)
    with ProgressBar("measuring recordings", total, "files") as bar:
        return open_bank(folder, data.bank, cache / f"soundbank-{name}.jsonl", os.cpu_count() or 1, bar.advance)
