"""A receiver's own thread: takes messages from its queue on disk, in order, and tries until they are delivered."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from timepro.inference.monitor.messages import Message
from timepro.inference.monitor.sinks.base import Later, Refused, Sink
from timepro.inference.monitor.spool import Spool

_LONG_GAP_S = 300.0  # between two reports of a receiver that stays away


class Delivery:
    """Delivers one sink's messages.

    Args:
        sink: the receiver.
        spool: its queue.
        refused: file for messages that the receiver refuses.
        retry_s: first and longest wait between two attempts.
        refused_after: attempts at a message that is refused.
        say: takes lines for the user.
    """

    def __init__(
        self, sink: Sink, spool: Spool, refused: Path, retry_s: tuple[float, float], refused_after: int,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.sink, self.spool = sink, spool
        self.trouble = ""  # why the receiver does not get its messages now
        self._refused, self._retry_s, self._refused_after, self._say = refused, retry_s, refused_after, say
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"deliver {sink.name}", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier start has left in the queue."""
        for note in self.spool.notes:
            self._say(note)
        if len(self.spool):
            self._say(f"{self.sink.name}: {len(self.spool)} messages of an earlier start wait for delivery")
        self.sink.start()
        self._thread.start()

    def put(self, message: Message) -> None:
        """Queue a message: once this returns, it is on the disk."""
        try:
            self.spool.put(message)
        except OSError as error:
            self._say(
                f"{self.sink.name}: {message['id']} cannot be kept on disk ({error.strerror or error}); it is in "
                "memory, and lost if this process is killed before it is delivered: make room on the disk"
            )
        self._wake.set()

    def close(self, grace_s: float) -> int:
        """Deliver what can be delivered in `grace_s`, then stop.

        Returns:
            how many messages wait for the next start.
        """
        deadline = time.monotonic() + grace_s
        while len(self.spool) and not self.trouble and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stop.set()
        self._wake.set()
        self._thread.join(max(0.1, deadline - time.monotonic() + 1.0))
        self.sink.close()
        left = len(self.spool)
        if not self._thread.is_alive():  # else it may still mark its last message
            self.spool.close()
        return left

    def _run(self) -> None:
        attempts, told = 0, -_LONG_GAP_S
        while not self._stop.is_set():
            message = self.spool.first()
            if message is None:
                self._wake.wait(1.0)
                self._wake.clear()
                continue
            try:
                self.sink.send(message)
            except (Later, Refused) as reason:
                attempts += 1
                self.trouble = str(reason)
                if isinstance(reason, Refused) and attempts >= self._refused_after and self._put_aside(message, reason):
                    attempts = 0
                    continue
                if attempts == 1 or time.monotonic() - told >= _LONG_GAP_S:
                    told = time.monotonic()
                    self._say(f"{self.sink.name}: {reason}; {len(self.spool)} wait, trying again")
                self._stop.wait(self._pause(attempts))
                continue
            except Exception as error:  # a fault of a sink must not silence it for good
                attempts += 1
                self.trouble = f"{type(error).__name__}: {error}"
                self._say(f"{self.sink.name}: {self.trouble}; trying again")
                self._stop.wait(self._pause(attempts))
                continue
            self.spool.done(message["id"])
            if attempts and self.trouble:
                self._say(f"{self.sink.name}: delivered again, {len(self.spool)} wait")
            attempts, self.trouble = 0, ""

    def _pause(self, attempts: int) -> float:
        first, most = self._retry_s
        longest: float = min(most, first * 2.0 ** min(attempts - 1, 30))
        return longest * random.uniform(0.8, 1.0)  # so that monitors do not come back all at once

    def _put_aside(self, message: Message, reason: Exception) -> bool:
        """Keep a refused message in a file, out of the way of those behind it; False where that fails."""
        line = json.dumps({"sink": self.sink.name, "reason": str(reason), "message": message}, ensure_ascii=False)
        try:
            with self._refused.open("a", encoding="utf-8") as out:
                out.write(line + "\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            self._say(
                f"{self.sink.name}: {self._refused} cannot be written: {error}; {message['id']} stays in the queue"
            )
            return False
        self._say(f"{self.sink.name}: refuses {message['id']}: {reason}; put aside in {self._refused}")
        self.spool.done(message["id"])
        return True
