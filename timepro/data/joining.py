"""Joining what two systems call differently: names of files, and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from timepro.data.event_parts import FileEvents
from timepro.data.labels import near
from timepro.data.manifest import shown
from timepro.data.tracks import without_audio_ending
from timepro.events import Event


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
    named: dict[str, str | None] = {**{label: label for label in known}, **labels}
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

    def kept(f: FileEvents) -> list[float | None] | None:
        if f.confidences is None:
            return None
        return [c for c, event in zip(f.confidences, f.events, strict=True) if named[event.label] is not None]

    return {
        name: replace(
            f,
            events=renamed(f.events),
            samples=None if f.samples is None else [renamed(s) for s in f.samples],
            confidences=kept(f),
        )
        for name, f in files.items()
    }


def labels_of(files: Mapping[str, FileEvents]) -> set[str]:
    """The labels of all events."""
    return {event.label for entry in files.values() for event in entry.events}
