"""A sound bank as people see it: its classes, their sources and parts, and what deserves a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from timepro.data.repairs import counted
from timepro.data.soundbank.bank import SoundBank, sources_of
from timepro.data.soundbank.layout import BACKGROUNDS, Recording
from timepro.data.soundbank.measure import PAUSE_S
from timepro.data.soundbank.settings import PARTS
from timepro.data.sounds import SAMPLE_RATE
from timepro.tables import print_lines, print_table, results_table

_SHOWN = 10


@dataclass(frozen=True)
class ClassFacts:
    """A class of a bank, or its backgrounds.

    Args:
        seconds: shortest, median and longest sound after trimming, and of all together; backgrounds untrimmed.
        parts: sources for training, validation and test; zeros where the class cannot be split.
    """

    label: str
    files: int
    sources: int
    seconds: tuple[float, float, float, float]
    rates: tuple[int, ...]
    parts: tuple[int, int, int]


@dataclass(frozen=True)
class BankFacts:
    """What `timepro data soundbank` tells.

    Args:
        notes: what does not keep a bank from being used.
    """

    classes: list[ClassFacts]
    problems: list[str]
    notes: list[str]


def facts_of(bank: SoundBank) -> BankFacts:
    """Describe an opened bank."""
    labels = [
        *bank.layout.labels,
        *([BACKGROUNDS] if any(r.label == BACKGROUNDS for r in bank.layout.recordings) else []),
    ]
    of_class: dict[str, list[Recording]] = {label: [] for label in labels}
    for r in bank.layout.recordings:
        of_class[r.label].append(r)
    return BankFacts([_class(bank, label, found) for label, found in of_class.items()], bank.problems, _notes(bank))


def _class(bank: SoundBank, label: str, recordings: Sequence[Recording]) -> ClassFacts:
    usable = [m for r in recordings if not (m := bank.measured[r.path]).problem]
    lengths = [m.seconds if label == BACKGROUNDS else (m.stop - m.start) / SAMPLE_RATE for m in usable]
    spread = (min(lengths), float(np.median(lengths)), max(lengths), sum(lengths)) if lengths else (0.0, 0.0, 0.0, 0.0)
    training, validation, test = (len(bank.parts[part].get(label, [])) for part in PARTS)
    return ClassFacts(
        label, len(recordings), len(sources_of(recordings, bank.measured)), spread,
        tuple(sorted({m.rate for m in usable})), (training, validation, test),
    )  # fmt: skip


def _notes(bank: SoundBank) -> list[str]:
    usable = [(r, m) for r in bank.layout.recordings if not (m := bank.measured[r.path]).problem]
    sounds = [(r, m) for r, m in usable if r.label != BACKGROUNDS]

    contents = Counter(m.content for _, m in usable)
    longest = bank.config.max_seconds
    clipped = [r for r, m in sounds if m.clipped]
    paused = [r for r, m in sounds if m.pause > PAUSE_S]
    dull = [r for r, m in usable if m.rate < SAMPLE_RATE]
    twice = [r for r, m in usable if contents[m.content] > 1]
    long = [r for r, m in sounds if (m.stop - m.start) / SAMPLE_RATE > longest]
    notes = [
        *_note(clipped, "with flat peaks (clipped)", "take a cleaner copy where there is one"),
        *_note(paused, f"with a pause of more than {PAUSE_S} s", "each is one event; cut it where it is several"),
        *_note(dull, f"below {SAMPLE_RATE} Hz", "a model may tell the class by the missing high frequencies"),
        *_note(twice, "that are there twice", "equal ones count as one source"),
        *_note(long, f"longer than data.bank.max_seconds ({longest:g} s)", "another piece is mixed each time"),
    ]
    if ignored := bank.layout.ignored:
        shown = ", ".join(ignored[:_SHOWN]) + (", ..." if len(ignored) > _SHOWN else "")
        notes.append(f"{counted(len(ignored), 'other file')} not read: {shown}")
    if not any(r.label == BACKGROUNDS for r in bank.layout.recordings):
        notes.append(f"no folder {BACKGROUNDS}/: events are mixed into white, pink and brown noise")
    return notes


def _note(found: Sequence[Recording], what: str, advice: str) -> list[str]:
    names = ", ".join(r.path for r in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    return [f"{counted(len(found), 'recording')} {what}: {names}; {advice}"] if found else []


def print_facts(facts: BankFacts, title: str, form: str) -> None:
    """The classes as a table, then notes and problems."""
    rows = [
        (
            c.label,
            dict(zip(("shortest", "median", "longest", "all"), c.seconds, strict=True))
            | dict(zip(PARTS, c.parts, strict=True))
            | {"files": c.files, "sources": c.sources, "rate": min(c.rates, default=0) / 1000},
        )
        for c in facts.classes
    ]
    if rows:
        print_table(_table(title, rows), form)
    print_lines([f"note: {note}" for note in facts.notes], form)
    print_lines([f"problem: {problem}" for problem in facts.problems], form)


def _table(title: str, rows: Sequence[tuple[str, dict[str, float]]]) -> Table:
    columns = [("files", "files", ",.0f", ""), ("sources", "sources", ",.0f", "")]
    columns += [(part, part, ",.0f", "") for part in PARTS]
    columns += [(key, f"{key} (s)", ".2f", "") for key in ("shortest", "median", "longest")]
    columns += [("all", "all (s)", ",.0f", ""), ("rate", "lowest kHz", ".3g", "")]
    return results_table(title, rows, columns)
