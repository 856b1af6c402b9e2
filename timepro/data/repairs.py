"""What readers mended, and where: so that nothing is read otherwise than it is written without being listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_PLACES = 3


class Repairs:
    """Counts each kind of repair, and remembers the first places.

    A kind is a sentence without its number whose first word can be counted: "row with nan: no events".
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str) -> None:
        """Count one repair; place: file and line, for example "found.tsv:3"."""
        self.counts[kind] += 1
        places = self._places.setdefault(kind, [])
        if len(places) < _PLACES and place not in places:
            places.append(place)

    def extend(self, repairs: Iterable[tuple[str, str]]) -> None:
        """Count (kind, place) pairs."""
        for kind, place in repairs:
            self.add(kind, place)

    def lines(self) -> list[str]:
        """One sentence a kind: "2 rows with nan: no events (found.tsv:3, found.tsv:4)"."""
        return [f"{counted(count, kind)} ({self._where(kind)})" for kind, count in self.counts.items()]

    def _where(self, kind: str) -> str:
        places = self._places[kind]
        return ", ".join(places) + (", ..." if self.counts[kind] > len(places) else "")


def counted(count: int, kind: str) -> str:
    """A number before a kind, the first word of which is in the plural where it must be."""
    first, space, rest = kind.partition(" ")
    return f"{count:,} {first}{'' if count == 1 else 's'}{space}{rest}"
