"""In which settings runs differ: `timepro diff`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from rich.text import Text

from timepro.run_list import CONFIG
from timepro.runs import read_identity, read_settings
from timepro.sweeps import NEVER_NAMED
from timepro.tables import plain_table, print_lines, print_table

_PLACE = ("name", "runs")  # where a run is kept, which its folder says already
_FILES = {
    "data": ("sft", "rl", "validation", "test", "soundbank"),
    "model": ("path",),
}  # settings that are paths, by section


class Differences(TypedDict):
    """Settings that differ by dotted key, and the code of each run; None where a run does not say it."""

    settings: dict[str, list[Any]]
    commits: list[str | None]


def portable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they may leave this machine: files by their names alone, and nothing of where a run was kept."""
    kept = {key: value for key, value in settings.items() if key not in NEVER_NAMED}
    for section, keys in _FILES.items():
        if section in kept:
            kept[section] = kept[section] | {key: Path(kept[section].get(key, "")).name for key in keys}
    return dict(json.loads(json.dumps(kept, default=str)))


def differences(runs: Sequence[Path]) -> Differences:
    """What runs differ in.

    Raises:
        ValueError: a run without settings.
    """
    for run in runs:
        if not (run / CONFIG).is_file():
            raise ValueError(f"{run} holds no {CONFIG}; name a run's folder, runs/NAME")
    return {
        "settings": differing_settings(runs),
        "commits": [read_identity(run).get("commit") or None for run in runs],
    }


def differing_settings(runs: Sequence[Path]) -> dict[str, list[Any]]:
    """Settings in which runs differ, by dotted key: a value a run, None where a run does not have the setting."""
    found = [dict(flat(read_settings(run))) for run in runs]
    keys = sorted({key for settings in found for key in settings} - set(_PLACE))
    return {
        key: [settings.get(key) for settings in found]
        for key in keys
        if any(not _same(settings, found[0], key) for settings in found[1:])
    }


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _same(some: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return (key in some) == (key in other) and some.get(key) == other.get(key)


def print_differences(names: Sequence[str], found: Differences, form: str = "text") -> None:
    """A table with a row a setting, and a line about the code."""
    rows = [[Text(key), *(Text(shown_setting(value)) for value in values)] for key, values in found["settings"].items()]
    if rows:
        print_table(plain_table("settings that differ", ["setting", *names], rows, prose=len(names) + 1), form)
    commits = found["commits"]
    if not any(commits):
        code = "the code is not recorded"
    elif len(set(commits)) == 1:
        code = f"the same code, {commits[0]}"
    else:
        code = f"the code differs: {', '.join(commit or 'not recorded' for commit in commits)}"
    print_lines([code if rows else f"no setting differs; {code}"], form)


def shown_setting(value: Any) -> str:
    """A setting as people read it: text as it is, anything else as JSON, and a dash where there is none."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
