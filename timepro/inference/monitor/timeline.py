"""Positions on the stream, and the moments that they stand for.

A position counts the seconds of sound since the monitor's start; it only grows. Anchors say at which moment a position
was. Moments between two anchors follow from the first one, so that a wall clock that is set anew moves no event that
has begun; `ClockWatch` notices that it was, and later positions get an anchor of their own.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from datetime import datetime, tzinfo

_MOST_ANCHORS = 4096
JUMP_S = 2.0  # what a clock's own drift does not do between two looks at it


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


class ClockWatch:
    """Notices that the wall clock was set, by the clock that only runs."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()

    def jump(self) -> float:
        """By how many seconds the wall clock was set since the last call; 0 for what drift explains."""
        offset = self._wall() - self._steady()
        moved, self._offset = offset - self._offset, offset
        return moved if abs(moved) >= JUMP_S else 0.0


def iso(epoch: float, zone: tzinfo | None) -> str:
    """A moment in ISO 8601 with its offset from UTC, to the millisecond."""
    moment = datetime.fromtimestamp(round(epoch, 3), zone)
    return (moment if zone is not None else moment.astimezone()).isoformat(timespec="milliseconds")


def file_stamp(epoch: float, zone: tzinfo | None) -> str:
    """A moment in a file's name: sorts, has no colon, and holds the offset from UTC (`20261126T021307.480+0100`)."""
    return iso(epoch, zone).replace(":", "").replace("-", "", 2)
