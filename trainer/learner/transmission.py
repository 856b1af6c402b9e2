"""One sync as rank 0 and the workers see it: from the pause to their word that they have the new weights.

The first error is kept, and nothing is sent after it: the learner's ranks have collectives to run to the end before
rank 0 may tell them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rollout import stream
from rollout.buffers import Buffers
from rollout.checksum import StreamChecksum
from trainer.learner.meeting import Meeting

_REASON_S = 1.0
_LONGEST = 100  # characters of what is seen here of a worker's failure


@dataclass(frozen=True)
class _Sending:
    """A broadcast under way, with its buffer, which must live as long."""

    work: Any
    buffer: Tensor
    sums: Sequence[Future[bytes]]
    buffers: Buffers | None


class Transmission:
    """A sync that has begun. A context; leaving it ends the checksum's threads.

    Args:
        meeting: whose group the weights go to.
        timeout_s: deadline of each wait.

    Attributes:
        version: of the weights.
        error: why it failed; empty so far.
        reports: of every process of the workers, at the end.
        paused_s: how long generation stood still.
    """

    def __init__(self, meeting: Meeting, version: int, timeout_s: float) -> None:
        self._meeting, self.version, self._timeout_s = meeting, version, timeout_s
        self._updates: list[Future[Any]] = []
        self._under_way: deque[_Sending] = deque()
        self._checksum = StreamChecksum()
        self._paused = 0.0
        self.error = ""
        self.reports: list[dict[str, Any]] = []
        self.paused_s = 0.0

    def __enter__(self) -> Transmission:
        self._checksum.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._checksum.__exit__(*error)

    def announce(self, update: Mapping[str, Any]) -> None:
        """Tell the workers what comes, for which they stop generating; the learner's ranks gather meanwhile."""
        self._attempt("", lambda: self._announce(update))

    def send(self, buffer: Tensor, where: str, buffers: Buffers | None = None) -> None:
        """Begin to send the next bytes, (N,) uint8, that are not to be written to any more.

        Args:
            buffers: who gets the buffer back once it has been sent.
        """
        self._attempt(f"{where}: ", lambda: self._send(buffer, buffers))

    def end(self, state: int | None = None) -> None:
        """Send the checksum, wait until the workers have confirmed it, and let them generate again.

        Args:
            state: the checksum of the whole state, where what was sent is a delta.
        """
        self._attempt("at the end of the stream: ", lambda: self._end(state))

    def _attempt(self, where: str, work: Callable[[], None]) -> None:
        if self.error:
            return
        try:
            work()
        except Exception as failure:  # noqa: BLE001 - told to every rank at the end
            self.error = f"{where}{self._named(failure)}"

    def _named(self, failure: Exception) -> str:
        """With the reason of a worker that has given up, for which the group fails; it may come a moment later."""
        wait(self._updates, _REASON_S, FIRST_EXCEPTION)
        reasons = [error for update in self._updates if update.done() and (error := update.exception()) is not None]
        own = f"{type(failure).__name__}: {failure}"
        if not reasons or failure in reasons:
            return own
        return f"{type(reasons[0]).__name__}: {reasons[0]} (here: {own[:_LONGEST]})"

    def _announce(self, update: Mapping[str, Any]) -> None:
        if self._meeting.group is None:
            raise RuntimeError("no transfer group; connect first")
        self._paused = time.monotonic()
        info = {"version": self.version, **update}
        self._updates = self._meeting.control.begin_update(self._meeting.members, info)

    def _send(self, buffer: Tensor, buffers: Buffers | None) -> None:
        sums = self._checksum.add(buffer)
        for update in self._updates:
            if update.done():
                update.result()
                raise RuntimeError("a worker said it was done before the stream ended")
        while len(self._under_way) >= stream.IN_FLIGHT:
            self._finish_one()
        work = stream.start_broadcast(self._meeting.group, buffer, self._timeout_s)
        self._under_way.append(_Sending(work, buffer, sums, buffers))

    def _finish_one(self) -> None:
        one = self._under_way[0]
        stream.finish(one.work, self._timeout_s)
        self._under_way.popleft()
        if one.buffers is not None:
            one.buffers.give(one.buffer, one.sums)

    def _end(self, state: int | None) -> None:
        control, members, timeout_s = self._meeting.control, self._meeting.members, self._timeout_s
        total = self._checksum.value()
        numbers = [total] if state is None else [total, state]
        device = self._under_way[-1].buffer.device
        while self._under_way:
            self._finish_one()
        trailer = torch.tensor(numbers, dtype=torch.int64, device=device)
        stream.finish(stream.start_broadcast(self._meeting.group, trailer, timeout_s), timeout_s)
        for update in self._updates:
            update.result(timeout=timeout_s)  # a worker whose checksum differs has raised
        self.reports = control.finish_update(members, self.version, numbers[-1])
        self.paused_s = time.monotonic() - self._paused
