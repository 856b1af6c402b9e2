"""Messages as lines of a file, each exactly once: the ids of its last lines are known at the start."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

from timepro.inference.monitor.messages import Message
from timepro.inference.monitor.sinks.base import Later

_KEPT_IDS = 1000  # more than can be written and not yet marked as delivered, which is one
_TAIL_BYTES = 4 << 20


class JsonLinesSink:
    """Appends to a file.

    Args:
        path: the file; made with its folder at the first message.
    """

    def __init__(self, path: Path) -> None:
        self.name = "jsonl"
        self._path = path
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._is_mended = False

    def start(self) -> None:
        """Nothing has to be there before the first message."""

    def send(self, message: Message) -> None:
        """Append a line, unless it is there.

        Raises:
            Later: the file cannot be written, as on a full disk; nothing of the line is left in it.
        """
        if not self._is_mended:
            self._mend()
        if message["id"] in self._ids:
            return
        line = json.dumps(message, ensure_ascii=False).encode() + b"\n"
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(handle).st_size
                try:
                    if os.write(handle, line) < len(line):
                        raise OSError(28, "no space left for a whole line")
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, size)
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            raise Later(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._know(message["id"])

    def close(self) -> None:
        """Nothing stays open between two messages."""

    def _mend(self) -> None:
        """Cut off a last line that a kill has left unfinished, and learn which ids are there."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._read_tail()
        except OSError as error:
            raise Later(f"{self._path} cannot be read: {error.strerror or error}") from error
        self._is_mended = True

    def _read_tail(self) -> None:
        if not self._path.is_file():
            return
        with self._path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
            unfinished = len(tail) - (tail.rfind(b"\n") + 1)
            if unfinished:
                file.truncate(size - unfinished)
        for line in tail[: len(tail) - unfinished].splitlines():
            try:
                self._know(json.loads(line)["id"])
            except (ValueError, KeyError, TypeError):
                continue  # the first line of the tail may be cut; other lines are the user's

    def _know(self, identity: str) -> None:
        self._ids[identity] = None
        while len(self._ids) > _KEPT_IDS:
            self._ids.popitem(last=False)
