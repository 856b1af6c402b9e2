"""The checkpoint that listens."""

from __future__ import annotations

from pathlib import Path

from timepro.card import read_card
from timepro.inference.detector import Detector
from timepro.inference.monitor.build import Ears
from timepro.inference.monitor.settings import MonitorSettings


def known_labels(folder: Path) -> tuple[str, ...]:
    """The labels that a checkpoint can say; empty where it has no closed set, or does not tell."""
    card = read_card(folder)
    return card.classes if card is not None else ()


def checkpoint_ears(settings: MonitorSettings, folder: Path, labels: tuple[str, ...]) -> Ears:
    """Load the checkpoint.

    Raises:
        ValueError: it cannot be loaded.
    """
    window = settings.window
    detector = Detector(folder, samples=window.samples, window=window.length_s or None)
    thresholds = detector.thresholds
    return Ears(detector.answerer, labels, thresholds.of if thresholds is not None else lambda label: None)
