"""How a command prints what it found: `--format` for people and papers, `--json` for programs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

FORMATS = ("text", "markdown", "latex")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add `--format` and `--json`, of which one may be given."""
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="how tables are printed; LaTeX needs its package booktabs (default: %(default)s)",
    )
    output.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def print_json(value: Any) -> None:
    """Print a value, dataclasses and paths inside it included, as one line of JSON.

    Numbers that JSON does not have (NaN, infinity) become null.
    """
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
