"""What a report says of the runs themselves: seed, date, commit, settings, and the settings in which they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timepro.runs import IDENTITY, read_settings, run_names

_UNKNOWN = "not recorded"


def run_facts(runs: Sequence[Path]) -> list[dict[str, str]]:
    """Of each run: name, seed, task, reward, date and commit as it recorded them, and all its settings as YAML."""
    found = []
    for run, name in run_names(runs).items():
        settings, path = read_settings(run), run / IDENTITY
        identity = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        config = run / "config.yaml"
        found.append(
            {
                "name": name,
                "seed": _shown(settings.get("seed", _UNKNOWN)),
                "task": _shown(settings.get("task", _UNKNOWN)),
                "rewards": _shown(settings.get("rewards", _UNKNOWN)),
                "started": identity.get("started") or _UNKNOWN,
                "commit": identity.get("commit") or _UNKNOWN,
                "settings": config.read_text(encoding="utf-8") if config.is_file() else "",
            }
        )
    return found


def differing_settings(runs: Sequence[Path]) -> list[list[str]]:
    """Rows of (key, value in each run) for settings in which the runs differ, names aside."""
    flat = [_flat(read_settings(run)) for run in runs]
    keys = sorted({key for one in flat for key in one} - {"name"})
    rows = [[key, *(one.get(key, "-") for one in flat)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _shown(value)
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
