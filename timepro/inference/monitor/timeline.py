"""Positions on the stream, and the moments that they stand for.

A position counts the seconds of sound since the monitor's start; it only grows. Anchors say at which moment a position
was. Moments between two anchors follow from the first one, so that a wall clock that is set anew moves no event that
has begun; `Drift` notices that it was, and later positions get an anchor of their own.
"""

from __future__ import annotations

import bisect
from collections import deque
from datetime import datetime, tzinfo

_MOST_ANCHORS = 4096


class Timeline:
    """Moments (seconds since 1970) of positions."""

    def __init__(self) -> None:
        self._positions: list[float] = []
        self._walls: list[float] = []

    @property
    def is_anchored(self) -> bool:
        return bool(self._positions)

    def anchor(self, position: float, wall: float) -> None:
        """From this position on, moments count from `wall`; positions of anchors only grow."""
        if self._positions and position < self._positions[-1]:
            raise ValueError(f"an anchor at {position:.3f} s comes before the last one, {self._positions[-1]:.3f} s")
        self._positions.append(position)
        self._walls.append(wall)
        del self._positions[:-_MOST_ANCHORS], self._walls[:-_MOST_ANCHORS]

    def wall(self, position: float) -> float:
        """The moment of a position; before the first anchor, as if the clock had always run."""
        if not self._positions:
            raise ValueError("no moment is known before the first sound")
        place = max(0, bisect.bisect_right(self._positions, position) - 1)
        return self._walls[place] + position - self._positions[place]

    def position(self, wall: float) -> float:
        """The position that a moment has by the newest anchor."""
        return self._positions[-1] + wall - self._walls[-1]


class Drift:
    """Notices that a live stream's moments are wrong for good: the wall clock was set, samples were lost on the way,
    the sender's clock runs at another pace. Late packets alone are not that: they are not late every time.

    Args:
        over_s: how long a deviation must last.
        most_s: deviations up to this are left alone.
    """

    def __init__(self, over_s: float = 5.0, most_s: float = 1.0) -> None:
        self._over_s, self._most_s = over_s, most_s
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, steady: float, deviation: float) -> float:
        """Take how much later than expected a sound has come in.

        Args:
            steady: seconds of a clock that only runs.
            deviation: seconds; negative for earlier.

        Returns:
            seconds by which the moments are to be moved, mostly 0.
        """
        self._seen.append((steady, deviation))
        if steady - self._seen[0][0] < self._over_s:
            return 0.0
        least = min((value for _, value in self._seen), key=abs)
        is_lasting = abs(least) > self._most_s and all(value * least > 0 for _, value in self._seen)
        while steady - self._seen[0][0] > self._over_s / 2:
            self._seen.popleft()
        if is_lasting:
            self._seen.clear()
            return deviation
        return 0.0


def iso(epoch: float, zone: tzinfo | None) -> str:
    """A moment in ISO 8601 with its offset from UTC, to the millisecond."""
    moment = datetime.fromtimestamp(round(epoch, 3), zone)
    return (moment if zone is not None else moment.astimezone()).isoformat(timespec="milliseconds")


def file_stamp(epoch: float, zone: tzinfo | None) -> str:
    """A moment in a file's name: sorts, has no colon, and holds the offset from UTC (`20261126T021307.480+0100`)."""
    return iso(epoch, zone).replace(":", "").replace("-", "", 2)
