from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bank_recordings import FREQUENCIES, RATE, padded, tone


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recording of a bank in tmp_path/bank."""

    def write(name: str, samples: np.ndarray, rate: int = RATE) -> Path:
        path = tmp_path / "bank" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)
        return path

    return write


@pytest.fixture
def bank(tmp_path: Path, write: Callable[..., Path]) -> Path:
    """Three classes of five sources; each recording has a frequency of its own, by which a mixture gives it away."""
    for label, frequency in FREQUENCIES.items():
        for number in range(5):
            sound = tone(frequency * (1 + 0.05 * number), 0.5 + 0.1 * number)
            write(f"{label}/{number}.wav", padded(sound, 0.1 * number, 0.2))
    return tmp_path / "bank"
