"""The thread that reads a source, and opens it again for as long as it takes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from timepro.inference.monitor.feeds.base import Closed, Finished, Item, Opened, Skipped, Sound, Source, SourceError
from timepro.inference.monitor.settings import Stream

_WAITING_S = 5.0  # of a source that can wait, so much is read ahead
_GOOD_S = 10.0  # a connection that gave so much sound was a good one


class Reader:
    """Reads in a thread of its own; `next` gives what has come.

    Args:
        source: see `Source`.
        rate: of the samples.
        settings: waits and limits.
        say: takes lines for the user.
    """

    def __init__(self, source: Source, rate: int, settings: Stream, say: Callable[[str], None]) -> None:
        self._source, self._rate, self._settings, self._say = source, rate, settings, say
        self._items: deque[Item] = deque()
        self._waiting_s, self._live = 0.0, True
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read", daemon=True)

    @property
    def behind_s(self) -> float:
        """Sound that waits to be listened to."""
        return self._waiting_s

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def next(self, timeout_s: float) -> Item | None:
        """The next item, or None where nothing comes in time."""
        with self._changed:
            if not self._items:
                self._changed.wait(timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            if isinstance(item, Sound):
                self._waiting_s -= len(item.samples) / self._rate
            self._changed.notify_all()
            return item

    def stop(self) -> None:
        """Read no more; a wait for the network ends by itself."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(1.0)

    def _run(self) -> None:
        wait_s, told = self._settings.retry_first_s, ""
        while not self._stop.is_set():
            seconds, reason = 0.0, "the stream ended"
            try:
                for item in self._source.items(self._rate, self._stop):
                    seconds += len(item.samples) / self._rate if isinstance(item, Sound) else 0.0
                    self._put(item)
                    if self._stop.is_set():
                        return
            except SourceError as error:
                reason = str(error)
            except Exception as error:  # a fault in here must end in a message, not in silence
                reason = f"{type(error).__name__}: {error}"
            if self._stop.is_set():
                return
            if not self._source.comes_back:
                self._put(Finished(reason))
                return
            self._put(Closed(reason))
            wait_s = self._settings.retry_first_s if seconds >= _GOOD_S else wait_s
            if reason != told or seconds:
                self._say(f"{reason}; trying again from {wait_s:g} s on, up to every {self._settings.retry_most_s:g} s")
            told = reason
            self._stop.wait(wait_s)
            wait_s = min(self._settings.retry_most_s, 2 * wait_s)

    def _put(self, item: Item) -> None:
        with self._changed:
            if isinstance(item, Opened):
                self._live = item.live
            if isinstance(item, Sound):
                while not self._live and self._waiting_s > _WAITING_S and not self._stop.is_set():
                    self._changed.wait(0.5)
                self._waiting_s += len(item.samples) / self._rate
            self._items.append(item)
            if self._live and self._waiting_s > self._settings.most_behind_s:
                self._drop()
            self._changed.notify_all()

    def _drop(self) -> None:
        """Leave out the oldest sound, half of what may wait, so that this is not told for every packet."""
        kept: list[Item] = []
        seconds = 0.0
        while self._items and self._waiting_s > self._settings.most_behind_s / 2:
            item = self._items.popleft()
            if isinstance(item, Sound):
                seconds += len(item.samples) / self._rate
                self._waiting_s -= len(item.samples) / self._rate
            elif isinstance(item, Skipped):
                seconds += item.seconds
            else:
                kept.append(item)
        self._items.extendleft([Skipped(seconds), *reversed(kept)])
