"""A sound bank opened: every recording measured, everything wrong with it found, its sources split into parts."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from timepro.data.soundbank.layout import BACKGROUNDS, Layout, Recording, read_layout, too_few
from timepro.data.soundbank.measure import Measured, measure
from timepro.data.soundbank.settings import PARTS, BankConfig, check_bank_config
from timepro.system.files import replacing
from timepro.system.pool import in_processes

_CHUNK = 64  # recordings a process measures before it reports
_SHOWN = 20  # problems in a message
_VERSION = 1  # of the kept measurements: raise it when they mean something else


@dataclass
class SoundBank:
    """A bank whose files are known.

    Args:
        measured: by a recording's path.
        parts: of each part, the recordings of each class, grouped by source; backgrounds under `BACKGROUNDS`.
        problems: all that keeps it from being mixed.
    """

    layout: Layout
    config: BankConfig
    measured: dict[str, Measured]
    parts: dict[str, dict[str, list[list[Recording]]]]
    problems: list[str]


def open_bank(
    folder: Path,
    config: BankConfig,
    kept: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> SoundBank:
    """Measure what is not measured yet, and split the bank.

    Args:
        kept: a file of measurements, which is read and written: a file that has not changed is not opened again.
        progress: gets the number of recordings measured since the last call.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: settings that nothing can be mixed with.
    """
    check_bank_config(config)
    layout = read_layout(folder, config.classes)
    measured = _measured(layout, config.trim_db, kept, workers, progress)
    problems = list(layout.problems)
    problems += [f"{r.path}: {m.problem}" for r in layout.recordings if (m := measured[r.path]).problem]
    problems += _same_in_two_classes(layout, measured)
    parts: dict[str, dict[str, list[list[Recording]]]] = {part: {} for part in PARTS}
    for label in (*layout.labels, BACKGROUNDS):
        sources = sources_of([r for r in layout.recordings if r.label == label], measured)
        if few := too_few(label, len(sources)):
            if label != BACKGROUNDS or any(r.label == label for r in layout.recordings):
                problems.append(few)
            continue
        for part, share in zip(PARTS, _split(sources, config), strict=True):
            parts[part][label] = share
    return SoundBank(layout, config, measured, parts, problems)


def require_sound(bank: SoundBank) -> SoundBank:
    """The bank, where nothing is wrong with it.

    Raises:
        ValueError: with its problems.
    """
    if bank.problems:
        shown = "\n".join(f"  {problem}" for problem in bank.problems[:_SHOWN])
        more = f"\n  and {len(bank.problems) - _SHOWN} more" if len(bank.problems) > _SHOWN else ""
        raise ValueError(f"the sound bank {bank.layout.folder} cannot be used:\n{shown}{more}")
    return bank


def sources_of(recordings: Sequence[Recording], measured: dict[str, Measured]) -> list[list[Recording]]:
    """Usable recordings grouped by source; those of equal content count as one, wherever they lie. Sorted."""
    group: dict[str, str] = {}  # of a source's name or a content, another name of the same group

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            name = group[name]
        return name

    usable = [r for r in recordings if not measured[r.path].problem]
    for r in usable:
        a, b = root(f"source {r.source}"), root(f"content {measured[r.path].content}")
        group[max(a, b)] = min(a, b)
    found: dict[str, list[Recording]] = defaultdict(list)
    for r in usable:
        found[root(f"source {r.source}")].append(r)
    return sorted(found.values(), key=lambda group: group[0].path)


def _split(sources: list[list[Recording]], config: BankConfig) -> tuple[list[list[Recording]], ...]:
    """Sources for training, validation and test; where a source goes depends on its name and the seed alone."""

    def draw(source: list[Recording]) -> bytes:
        return hashlib.sha256(f"{config.split_seed}:{source[0].path}".encode(errors="surrogateescape")).digest()

    shuffled = sorted(sources, key=draw)
    validation = max(1, round(len(sources) * config.validation_share))
    test = max(1, round(len(sources) * config.test_share))
    over = max(0, validation + test - (len(sources) - 1))  # of few sources one is left for training
    validation -= min(over, validation - 1)
    test = min(test, len(sources) - 1 - validation)
    return shuffled[validation + test :], shuffled[:validation], shuffled[validation : validation + test]


def _same_in_two_classes(layout: Layout, measured: dict[str, Measured]) -> list[str]:
    first: dict[str, Recording] = {}
    problems = []
    for r in layout.recordings:
        content = measured[r.path].content
        if not content:
            continue
        other = first.setdefault(content, r)
        if other.label != r.label:
            problems.append(f"{r.path}: is the same recording as {other.path}, of another class; remove one of them")
    return problems


def _measured(
    layout: Layout, trim_db: float, kept: Path | None, workers: int, progress: Callable[[int], None] | None
) -> dict[str, Measured]:
    known = _read_kept(kept, trim_db) if kept is not None else {}
    found: dict[str, Measured] = {}
    missing = []
    for r in layout.recordings:
        if (measured := known.get(_state(r))) is not None:
            found[r.path] = measured
        else:
            missing.append(r)
    if progress is not None and found:
        progress(len(found))
    jobs = [missing[i : i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
    for made in in_processes(_measure_all, jobs, workers, layout.folder, trim_db):
        found |= made
        if progress is not None:
            progress(len(made))
    if kept is not None and missing:
        _write_kept(kept, trim_db, ((_state(r), found[r.path]) for r in layout.recordings))
    return found


def _measure_all(recordings: list[Recording], folder: Path, trim_db: float) -> dict[str, Measured]:
    return {r.path: measure(folder / r.path, trim_db, r.label == BACKGROUNDS) for r in recordings}


def _state(r: Recording) -> str:
    return f"{r.path}\0{r.size}\0{r.changed}"


def _read_kept(path: Path, trim_db: float) -> dict[str, Measured]:
    """Measurements of an earlier time; none where they are of other settings, damaged or not there."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            if json.loads(next(file, "{}")) != {"version": _VERSION, "trim_db": trim_db}:
                return {}
            return {state: Measured(**facts) for state, facts in map(json.loads, file)}
    except (OSError, ValueError, TypeError):
        return {}  # all of them are made anew


def _write_kept(path: Path, trim_db: float, measured: Iterable[tuple[str, Measured]]) -> None:
    with replacing(path) as out:
        out.write(json.dumps({"version": _VERSION, "trim_db": trim_db}) + "\n")
        for state, facts in measured:
            out.write(json.dumps([state, asdict(facts)]) + "\n")
