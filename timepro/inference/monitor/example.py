"""The file of settings that `timepro monitor --example` prints: every key with its default."""

from __future__ import annotations

from pathlib import Path

EXAMPLE = (Path(__file__).parent / "example.yaml").read_text(encoding="utf-8")
