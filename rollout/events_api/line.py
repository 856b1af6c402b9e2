"""The bounded queue in front of the model: who runs, who waits, and who is sent away with 429."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from types import TracebackType

from rollout.events_api.problems import Problem

_REMEMBERED = 20  # runs that the estimate of a wait is made from
_MOST_RETRY_S = 600


class Line:
    """Places for `at_once` runs and `queue` waiting requests.

    Args:
        guess_s: of a run's seconds, before there has been one.
    """

    def __init__(self, at_once: int, queue: int, guess_s: float = 10.0) -> None:
        self.at_once, self.queue = at_once, queue
        self.running = self.waiting = 0
        self._slots = asyncio.Semaphore(at_once)
        self._seconds: deque[float] = deque([guess_s], maxlen=_REMEMBERED)

    def enter(self) -> Place:
        """A place in the line, taken at once.

        Raises:
            Problem: 429 with `Retry-After`, as all places are taken.
        """
        if self.running + self.waiting >= self.at_once + self.queue:
            wait = self.expected_wait_s()
            raise Problem(
                429, "queue_full", f"{self.running} requests are being answered and {self.waiting} wait already.",
                f"This server listens to {self.at_once} recording(s) at a time and lets {self.queue} wait.",
                f"Send it again in about {wait} s, as Retry-After says; --queue and --at-once change the numbers.",
                {"Retry-After": str(wait)},
            )  # fmt: skip
        return Place(self)

    def expected_wait_s(self) -> int:
        """Whole seconds until a place is likely to be free, 1 to 600."""
        mean = sum(self._seconds) / len(self._seconds)
        return min(_MOST_RETRY_S, max(1, math.ceil(mean * (self.waiting + 1) / self.at_once)))


class Place:
    """One request's place: it waits from the start, runs after `turn`, and is given back by `leave`."""

    def __init__(self, line: Line) -> None:
        self._line, self._began = line, 0.0
        self._state = "waiting"
        line.waiting += 1

    async def turn(self) -> None:
        """Wait until it may run, first come first served."""
        await self._line._slots.acquire()
        self._line.waiting -= 1
        self._line.running += 1
        self._state, self._began = "running", time.monotonic()

    def leave(self) -> None:
        """Give the place back; safe to call twice."""
        line = self._line
        if self._state == "waiting":
            line.waiting -= 1
        elif self._state == "running":
            line.running -= 1
            line._seconds.append(time.monotonic() - self._began)
            line._slots.release()
        self._state = "left"

    def __enter__(self) -> Place:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._state == "waiting":  # a run may outlast its request: whoever runs it gives the place back
            self.leave()
