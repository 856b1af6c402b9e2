"""What a report says of the runs themselves: seed, date, commit, settings, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from timepro.run_settings import differing_settings, shown_setting
from timepro.runs import read_identity, read_settings, run_names

_UNKNOWN = "not recorded"


def run_facts(runs: Sequence[Path]) -> list[dict[str, str]]:
    """Of each run: name, seed, task, reward, date and commit as it recorded them, and all its settings as YAML."""
    found = []
    for run, name in run_names(runs).items():
        settings, identity = read_settings(run), read_identity(run)
        config = run / "config.yaml"
        found.append(
            {
                "name": name,
                "seed": shown_setting(settings.get("seed", _UNKNOWN)),
                "task": shown_setting(settings.get("task", _UNKNOWN)),
                "rewards": shown_setting(settings.get("rewards", _UNKNOWN)),
                "started": identity.get("started") or _UNKNOWN,
                "commit": identity.get("commit") or _UNKNOWN,
                "settings": config.read_text(encoding="utf-8") if config.is_file() else "",
            }
        )
    return found


def setting_rows(runs: Sequence[Path]) -> list[list[str]]:
    """Rows of (key, value in each run) for settings in which the runs differ."""
    return [[key, *map(shown_setting, values)] for key, values in differing_settings(runs).items()]
