"""Above which confidence an event is reported: chosen on a validation set, kept in the checkpoint's folder.

`detection.json` holds one section for each kind of confidence:

    {"version": 1, "kinds": {"share": {"default": 0.5, "thresholds": {"glass_breaking": 0.62}, "calibration": {...}}}}

`calibration` says how they were chosen (data, wanted precision, number of samples, what was reached), for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timepro.inference.detections import KINDS, ConfidenceKind
from timepro.system.files import write_json

THRESHOLDS = "detection.json"
UNCALIBRATED: Mapping[ConfidenceKind, float] = {"share": 0.5, "probability": 0.0}
"""Without a calibration: what most sampled answers hold, or all that the greedy answer says."""

_VERSION = 1


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of one kind of confidence.

    Args:
        kind: which.
        default: of labels that have none of their own, in [0, 1].
        thresholds: by label, in [0, 1].
        calibration: how they were chosen.
    """

    kind: ConfidenceKind
    default: float
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no kind of confidence {self.kind!r}; kinds: {', '.join(KINDS)}")
        for label, value in {"default": self.default, **self.thresholds}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"the threshold of {label} is {value!r}; it must be a number from 0 to 1")

    def of(self, label: str) -> float:
        """The threshold of a label."""
        return self.thresholds.get(label, self.default)

    def keeps(self, label: str, confidence: float | None) -> bool:
        """Whether an event is reported. One without a confidence is."""
        return confidence is None or confidence >= self.of(label)


def read_thresholds(folder: str | Path, kind: ConfidenceKind) -> Thresholds | None:
    """The thresholds of a checkpoint folder for one kind of confidence; None where it has not been calibrated.

    Raises:
        ValueError: a file that is damaged, or of a later version.
    """
    section = _sections(Path(folder) / THRESHOLDS).get(kind)
    if section is None:
        return None
    try:
        return Thresholds(kind, section["default"], dict(section["thresholds"]), dict(section.get("calibration", {})))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_unreadable(Path(folder) / THRESHOLDS, error)) from None


def write_thresholds(folder: str | Path, chosen: Thresholds) -> Path:
    """Keep thresholds in a checkpoint folder, beside those of the other kind; returns the file.

    Raises:
        ValueError: the folder's file is damaged, or of a later version.
    """
    path = Path(folder) / THRESHOLDS
    section = {
        "default": chosen.default,
        "thresholds": dict(sorted(chosen.thresholds.items())),
        "calibration": dict(chosen.calibration),
    }
    write_json(path, {"version": _VERSION, "kinds": _sections(path) | {chosen.kind: section}}, indent=1)
    return path


def _sections(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["version"] != _VERSION:
            raise ValueError(f"it has version {raw['version']}, and this program reads version {_VERSION}")
        return dict(raw["kinds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} cannot be read ({type(error).__name__}: {error}); remove it, or run timepro plot calibration again"
