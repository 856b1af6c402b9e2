"""A receiver's queue on disk: a message that was put in is delivered in its turn, also after the process was killed.

The file is a journal of lines `STATUS CRC JSON`. Putting appends a line and waits until the disk has it. Delivery
overwrites the one character STATUS in place, which takes no room on the disk: a full one cannot make a delivered
message be sent again. A last line that was cut off (a kill, no power) was never promised to anybody, and is dropped.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections import OrderedDict
from pathlib import Path

from timepro.inference.monitor.messages import Message
from timepro.system.files import write_bytes

_WAITING, _DELIVERED = b"W", b"D"
_KEPT_IDS = 5000  # at most, of delivered messages: by them, one that is put in again is known
_ID_BYTES = 64  # of one, about
_COMPACT_BYTES = 1 << 20


class SpoolFull(OSError):
    """The queue's own limit is reached."""


class Spool:
    """Messages in the order of their putting. Safe to use from several threads.

    Args:
        path: the journal.
        most_bytes: its limit.
    """

    def __init__(self, path: Path, most_bytes: int = 64 << 20) -> None:
        self._path, self._most_bytes = path, most_bytes
        self._kept_ids = min(_KEPT_IDS, most_bytes // 4 // _ID_BYTES)
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, tuple[int, Message]] = OrderedDict()  # by id: place of the line (-1: no room)
        self._delivered: OrderedDict[str, None] = OrderedDict()
        self.notes: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._size = 0
        self._read()

    def put(self, message: Message) -> bool:
        """Keep a message until it is delivered.

        Returns:
            whether it is new: False for an id that is in the queue or was delivered.

        Raises:
            OSError: no room on the disk, or in the queue (`SpoolFull`). The message is in the queue all the same, in
                memory: it is lost only if the process ends before it is delivered.
        """
        with self._lock:
            identity = message["id"]
            if identity in self._waiting or identity in self._delivered:
                return False
            try:
                self._append(identity, message)
            except OSError:
                self._waiting[identity] = (-1, message)
                raise
            return True

    def first(self) -> Message | None:
        """The oldest message that waits."""
        with self._lock:
            return next((message for _, message in self._waiting.values()), None)

    def done(self, identity: str) -> None:
        """A message was delivered: it is never given out again."""
        with self._lock:
            place, _ = self._waiting.pop(identity)
            self._remember(identity)
            if place >= 0:
                os.pwrite(self._file, _DELIVERED, place)
                os.fdatasync(self._file)
            try:
                self._keep_what_had_no_room()
                if self._size > _COMPACT_BYTES and self._size > 2 * sum(map(_length, self._waiting.values())):
                    self._compact()
            except OSError:
                pass  # the disk is still full; whoever puts is told

    def __len__(self) -> int:
        return len(self._waiting)

    def in_memory_alone(self) -> int:
        """How many messages the disk had no room for."""
        with self._lock:
            return sum(place < 0 for place, _ in self._waiting.values())

    def close(self) -> None:
        """Close the file; what waits is there for the next start."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _append(self, identity: str, message: Message) -> None:
        line = _line(_WAITING, message)
        if self._size + len(line) > self._most_bytes:
            self._compact()
        if self._size + len(line) > self._most_bytes:
            raise SpoolFull(f"{self._path}: the queue's {self._most_bytes / 2**20:g} MiB are full (sinks.queue_mib)")
        try:
            written = os.pwrite(self._file, line, self._size)
            if written < len(line):
                raise OSError(28, "no space left for a whole line", str(self._path))
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._waiting[identity] = (self._size, message)
        self._size += len(line)

    def _keep_what_had_no_room(self) -> None:
        for identity, (place, message) in list(self._waiting.items()):
            if place < 0:
                self._append(identity, message)

    def _read(self) -> None:
        content, place = os.pread(self._file, os.fstat(self._file).st_size, 0), 0
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                self.notes.append(f"{self._path}:{number}: the last line was cut off while it was written; dropped")
                break
            message = _message(line)
            if message is None:
                self.notes.append(f"{self._path}:{number}: damaged, left out; the disk may be failing")
            elif line[:1] == _DELIVERED:
                self._remember(message["id"])
            else:
                self._waiting[message["id"]] = (place, message)
            place += len(line)
        self._size = place
        os.ftruncate(self._file, place)

    def _compact(self) -> None:
        lines = [_line(_DELIVERED, {"id": identity}) for identity in self._delivered]
        places, size = {}, sum(map(len, lines))
        for identity, (place, message) in self._waiting.items():
            if place >= 0:
                lines.append(_line(_WAITING, message))
                places[identity] = size
                size += len(lines[-1])
        write_bytes(self._path, b"".join(lines))
        os.close(self._file)
        self._file, self._size = os.open(self._path, os.O_RDWR), size
        for identity, place in places.items():
            self._waiting[identity] = (place, self._waiting[identity][1])

    def _remember(self, identity: str) -> None:
        self._delivered[identity] = None
        while len(self._delivered) > self._kept_ids:
            self._delivered.popitem(last=False)


def _line(status: bytes, message: Message) -> bytes:
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%s %08x %s\n" % (status, zlib.crc32(body), body)


def _length(waiting: tuple[int, Message]) -> int:
    return len(_line(_WAITING, waiting[1]))


def _message(line: bytes) -> Message | None:
    status, _, rest = line.rstrip(b"\n").partition(b" ")
    crc, _, body = rest.partition(b" ")
    if status not in (_WAITING, _DELIVERED) or not body or crc != b"%08x" % zlib.crc32(body):
        return None
    message: Message = json.loads(body)
    return message
