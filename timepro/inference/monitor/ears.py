"""The checkpoint that listens."""

from __future__ import annotations

from pathlib import Path

from timepro.card import read_card
from timepro.inference.detector import Detector
from timepro.inference.monitor.build import Ears
from timepro.inference.monitor.settings import MonitorSettings
from timepro.runs import newest_checkpoint


def find_checkpoint(settings: MonitorSettings) -> tuple[Path, tuple[str, ...]]:
    """The checkpoint's folder, or the newest finished run's, and the labels that it can say.

    Raises:
        ValueError: there is none, or it is not one.
    """
    folder = Path(settings.checkpoint) if settings.checkpoint else newest_checkpoint(Path("runs"))
    if not (folder / "config.json").is_file():
        raise ValueError(f"checkpoint {folder} is not a checkpoint's folder: it has no config.json")
    card = read_card(folder)
    return folder, card.classes if card is not None else ()


def checkpoint_ears(settings: MonitorSettings, folder: Path, labels: tuple[str, ...]) -> Ears:
    """Load the checkpoint.

    Raises:
        ValueError: it cannot be loaded.
    """
    window = settings.window
    detector = Detector(folder, samples=window.samples, window=window.length_s or None)
    thresholds = detector.thresholds
    return Ears(detector.answerer, labels, thresholds.of if thresholds is not None else lambda label: None)
