"""A clip as the rest of the program sees it: its audio file, its events, its queries.

`timepro.data.manifest` reads and writes clips; a task (`timepro.tasks`) makes questions of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from timepro.events import Event

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ManifestEvent:
    """One sound event. ``annotated_*`` are the times of a human-like annotator (late, jittered); None where unknown."""

    onset: float
    offset: float
    label: str
    caption: str | None = None
    annotated_onset: float | None = None
    annotated_offset: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A grounding query and every interval it refers to; no interval means that the clip does not contain it."""

    text: str
    intervals: tuple[Interval, ...]
    annotated_intervals: tuple[Interval, ...] | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """One manifest line. ``audio`` is absolute, ``duration`` in seconds, ``split`` None where unknown.

    ``tasks`` are those that the clip serves; None for all.
    """

    id: str
    audio: Path
    duration: float
    events: tuple[ManifestEvent, ...]
    queries: tuple[Query, ...] = ()
    split: str | None = None
    tasks: tuple[str, ...] | None = None

    def labelled(self, times: Literal["exact", "annotated"]) -> list[Event]:
        """The clip's events in time order, with exact or annotated times.

        Raises ValueError for an unknown ``times`` and where annotated times are asked for but absent.
        """
        if times == "exact":
            return sorted(Event(e.onset, e.offset, e.label) for e in self.events)
        if times != "annotated":
            raise ValueError(f"times must be 'exact' or 'annotated', not {times!r}")
        found = []
        for index, e in enumerate(self.events):
            if e.annotated_onset is None or e.annotated_offset is None:
                raise ValueError(
                    f"clip {self.id!r}: events[{index}] ({e.label!r}) has no annotated times; set sft.label_times to "
                    "auto or exact, or add 'annotated_onset' and 'annotated_offset' to its manifest line"
                )
            found.append(Event(e.annotated_onset, e.annotated_offset, e.label))
        return sorted(found)
