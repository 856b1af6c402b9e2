"""Joining what two systems call differently: names of files, and labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace

from timepro.data.event_parts import FileEvents
from timepro.data.labels import near
from timepro.data.manifest import shown
from timepro.data.tracks import without_audio_ending
from timepro.events import Event

MATCHES = ("exact", "basename")
_NO_LETTER = re.compile(r"[\W_]+")


def basename(name: str) -> str:
    """A file's name without its folders and without the ending of an audio file."""
    return without_audio_ending(name.replace("\\", "/").rsplit("/", 1)[-1])


def by_basename(files: Mapping[str, FileEvents], where: object) -> dict[str, FileEvents]:
    """The same files by their basenames. Raises ValueError for two files with the same one."""
    first: dict[str, str] = {}
    for name in files:
        other = first.setdefault(basename(name), name)
        if other != name:
            raise ValueError(
                f"{where}: {other!r} and {name!r} have the same basename {basename(name)!r}; "
                "give them different names, or match by the whole name"
            )
    return {basename(name): entry for name, entry in files.items()}


def relabelled(
    files: Mapping[str, FileEvents], labels: Mapping[str, str | None], known: set[str], where: object
) -> dict[str, FileEvents]:
    """Predictions with their labels renamed as a label map says; None leaves a label's events out.

    Args:
        known: labels of the reference, which need no line in the map.

    Raises:
        ValueError: a label that neither the map nor the reference has.
    """
    named = labels | {label: label for label in known if label not in labels}
    lists = [events for f in files.values() for events in (f.events, *(f.samples or ()))]
    found = dict.fromkeys(event.label for events in lists for event in events)
    if lost := [label for label in found if label not in named]:
        more = f" and {len(lost) - 1:,} more labels are" if len(lost) > 1 else " is"
        raise ValueError(
            f"{where}: {shown(lost[0])}{more} neither in the label map nor in the reference{near(lost[0], named)}; "
            "write a line for each, with - behind the tab to leave its events out"
        )

    def renamed(events: Iterable[Event]) -> list[Event]:
        return [replace(event, label=new) for event in events if (new := named[event.label]) is not None]

    return {
        name: replace(
            f, events=renamed(f.events), samples=None if f.samples is None else [renamed(s) for s in f.samples]
        )
        for name, f in files.items()
    }


def labels_of(files: Mapping[str, FileEvents]) -> set[str]:
    """The labels of all events."""
    return {event.label for entry in files.values() for event in entry.events}


def spelling(label: str) -> str:
    """What is left of a label without case, marks between words and Unicode's several ways to write a character."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return _NO_LETTER.sub(" ", folded).strip()


def spelt_otherwise(one: Iterable[str], other: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (label of one side alone, label of the other) that differ in spelling alone, each label once."""
    sides = set(one), set(other)
    pairs = {}
    for mine, theirs, swapped in ((*sides, False), (*reversed(sides), True)):
        by_spelling = {key: label for label in sorted(theirs) if (key := spelling(label))}
        for label in sorted(mine - theirs):
            if (twin := by_spelling.get(spelling(label))) is not None:
                pairs[frozenset((label, twin))] = (twin, label) if swapped else (label, twin)
    return sorted(pairs.values())


def spelling_notes(one: Iterable[str], other: Iterable[str], names: tuple[str, str]) -> list[str]:
    """One sentence a pair of labels that differ in spelling alone; names: of the two sides."""
    return [
        f"label {written(a)} in {names[0]} and {written(b)} in {names[1]} differ in spelling alone: two classes"
        for a, b in spelt_otherwise(one, other)
    ]


def written(label: str) -> str:
    """A label in a message, with characters beyond ASCII spelt out where two forms of them look the same."""
    return repr(label) if unicodedata.is_normalized("NFC", label) else ascii(label)
