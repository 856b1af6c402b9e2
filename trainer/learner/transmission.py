"""One sync as rank 0 and the workers see it: from the pause to their word that they have the new weights.

The first error is kept, and nothing is sent after it: the learner's ranks have collectives to run to the end before
rank 0 may tell them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from rollout import stream
from rollout.checksum import StreamChecksum
from trainer.learner.meeting import Meeting


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
        self._under_way: deque[tuple[Any, Tensor]] = deque()  # with the buffers, which must live as long
        self._checksum = StreamChecksum()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="announcement")
        self._announced: Future[None] = Future()
        self._paused = 0.0
        self.error = ""
        self.reports: list[dict[str, Any]] = []
        self.paused_s = 0.0

    def __enter__(self) -> Transmission:
        self._checksum.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._thread.shutdown(wait=True)
        self._checksum.__exit__(*error)

    def announce(self, update: Mapping[str, Any]) -> None:
        """Pause the workers, and tell them what comes; the learner's ranks gather meanwhile."""
        self._announced = self._thread.submit(self._announce, update)

    def send(self, buffer: Tensor, where: str) -> None:
        """Begin to send the next bytes, (N,) uint8, that are not to be written to any more."""
        self._attempt(f"{where}: ", lambda: self._send(buffer))

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
            self.error = f"{where}{type(failure).__name__}: {failure}"

    def _announce(self, update: Mapping[str, Any]) -> None:
        control, members = self._meeting.control, self._meeting.members
        if self._meeting.group is None:
            raise RuntimeError("no transfer group; connect first")
        self._paused = time.monotonic()
        control.pause(members)
        control.on_all(members, "start_weight_update")
        body = {"update_info": {"version": self.version, **update}}
        self._updates = [control.begin(url, "update_weights", body) for url in members]

    def _send(self, buffer: Tensor) -> None:
        self._checksum.add(buffer)
        self._announced.result()
        for update in self._updates:
            if update.done():
                update.result()
                raise RuntimeError("a worker said it was done before the stream ended")
        while len(self._under_way) >= stream.IN_FLIGHT:
            self._finish_one()
        work = stream.start_broadcast(self._meeting.group, buffer, self._timeout_s)
        self._under_way.append((work, buffer))

    def _finish_one(self) -> None:
        work, _ = self._under_way[0]
        stream.finish(work, self._timeout_s)
        self._under_way.popleft()

    def _end(self, state: int | None) -> None:
        control, members, timeout_s = self._meeting.control, self._meeting.members, self._timeout_s
        total = self._checksum.value()
        numbers = [total] if state is None else [total, state]
        device = self._under_way[-1][1].device
        while self._under_way:
            self._finish_one()
        trailer = torch.tensor(numbers, dtype=torch.int64, device=device)
        stream.finish(stream.start_broadcast(self._meeting.group, trailer, timeout_s), timeout_s)
        for update in self._updates:
            update.result(timeout=timeout_s)  # a worker whose checksum differs has raised
        control.on_all(members, "finish_weight_update", {"weight_version": str(self.version)})
        control.reset_prefix_cache(members)
        replies = control.on_all(members, "collective_rpc", {"method": "timepro_last_update"})
        for url, reply in zip(members, replies, strict=True):
            for report in reply["results"]:
                if report.get("version") != self.version or report.get("checksum") != numbers[-1]:
                    raise RuntimeError(
                        f"worker {url} reports {report}, not version {self.version} checksum {numbers[-1]}"
                    )
                self.reports.append(report)
        control.resume(members)
        self.paused_s = time.monotonic() - self._paused
