"""The axes of the parity matrix: what its rows and columns are."""

from __future__ import annotations

from typing import Any

from timepro.families import all_families
from timepro.tiny.config import TimestampsConfig

FAMILIES = tuple(family.name for family in all_families())
LAYOUTS: dict[str, dict[str, Any]] = {
    "off": {"astp": False},
    "on": {},
    "stride 5": {"astp_every": 5},
    "before": {"astp_position": "before"},
    "factorised, before": {
        "timestamps": TimestampsConfig(duration=3600.0, style="factorised"),
        "astp_position": "before",
    },
}
HEADS = {"untied": False, "tied": True}
WEIGHTS = ("base", "3 syncs", "adapters")
BATCHES = ("1 clip", "2 clips")
