"""Sound events, and what could be read from an answer. `timepro.answers` writes and reads the text between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One sound event, ``[onset, offset)`` in seconds. The label is a class, a caption, or "" for grounding."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What could be read from an answer.

    Args:
        events: in the order of the text, duplicates kept (they are the model's answer).
        ok: the answer is usable: events were read, or it says that there are none.
        repairs: what had to be mended or dropped, in the order of the text.
        unread: of a usable answer, how many parts of it are left out: events without an end, other text between them.
    """

    events: list[Event]
    ok: bool
    repairs: tuple[str, ...] = ()
    unread: int = 0

    @property
    def clean(self) -> bool:
        """Whether the answer follows the written format (white space and number of decimals aside)."""
        return self.ok and not self.repairs

    @property
    def mended(self) -> bool:
        """Whether events were read from it, or that there are none, though it is not written as the format says."""
        return self.ok and bool(self.repairs)
