"""Small data sets in the layouts of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

HEADER = "filename\tonset\toffset\tevent_label"


class Trees:
    """Writers of small folders, and of what goes into them."""

    @staticmethod
    def audio(path: Path, seconds: float = 4.0, rate: int = 16000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate))
        soundfile.write(path, samples, rate)
        return path

    @staticmethod
    def desed(root: Path, *lines: str, names: tuple[str, ...] = ("a", "b"), header: str = HEADER) -> Path:
        """A root with validation/validation.tsv and 4 s of audio a name."""
        table = root / "metadata" / "validation" / "validation.tsv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_bytes("".join(line + "\n" for line in (header, *lines)).encode())
        for name in names:
            Trees.audio(root / "audio" / "validation" / f"{name}.wav")
        return root

    @staticmethod
    def dump(path: Path, value: object, indent: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=indent), encoding="utf-8")

    @staticmethod
    def jams(*observations: tuple[str, object, object, object]) -> dict:
        """A JAMS object; observations are (role, time, duration, label)."""
        data = [
            {"time": t, "duration": d, "confidence": 1.0, "value": {"role": role, "label": label, "event_time": 99.0}}
            for role, t, d, label in observations
        ]
        return {
            "annotations": [{"namespace": "scaper", "data": data, "time": 0, "duration": 4.0}],
            "file_metadata": {"duration": 4.0, "jams_version": "0.2.2"},
            "sandbox": {},
        }


@pytest.fixture
def trees() -> type[Trees]:
    return Trees
