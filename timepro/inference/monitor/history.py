"""Events of the last hours, for the page; kept in a file so that a restart shows them, too."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from timepro.system.files import write_text

_MOST_EVENTS = 5000
_LARGEST_FILE = 8 << 20


class History:
    """Events by id, the newest last. Safe to use from several threads.

    Args:
        path: JSON lines; the last line of an id counts.
        hours: that are kept.
    """

    def __init__(self, path: Path, hours: float) -> None:
        self._path, self._hours = path, hours
        self._lock = threading.Lock()
        self._events: OrderedDict[str, dict[str, Any]] = OrderedDict()
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                entry = json.loads(line)
                self._events[entry["event"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill: this file is for looking, alerts have queues of their own
        self._rewrite()

    def note(self, entry: dict[str, Any]) -> None:
        """Add an event, or what is new about one.

        Args:
            entry: `event` (its id), `label`, `onset` and `offset` (seconds since 1970, offset None while it goes on),
                `confidence`, `alerted`, `clip`.
        """
        with self._lock:
            self._events[entry["event"]] = entry
            self._forget()
            try:
                with self._path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(entry) + "\n")
                if self._path.stat().st_size > _LARGEST_FILE:
                    self._rewrite()
            except OSError:
                pass  # a full disk is told by the queues; the page goes on from memory

    def since(self, moment: float) -> list[dict[str, Any]]:
        """Events that were heard after a moment."""
        with self._lock:
            return [entry for entry in self._events.values() if (entry["offset"] or time.time()) >= moment]

    def _forget(self) -> None:
        oldest = time.time() - self._hours * 3600
        gone = [key for key, entry in self._events.items() if entry["offset"] and entry["offset"] < oldest]
        for key in gone + list(self._events)[: max(0, len(self._events) - len(gone) - _MOST_EVENTS)]:
            self._events.pop(key, None)

    def _rewrite(self) -> None:
        self._forget()
        with suppress(OSError):  # as above
            write_text(self._path, "".join(json.dumps(entry) + "\n" for entry in self._events.values()))
