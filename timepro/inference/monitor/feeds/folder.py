"""A folder that a recorder writes into: each file once it is complete, at the time that its name says."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

from timepro.inference.monitor.feeds.base import FileDone, Item, Opened, Sound, SourceError
from timepro.inference.monitor.feeds.decoded import av_module, decoded

_ENDINGS = {
    ".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".mkv", ".mka", ".mov", ".ts", ".webm", ".avi",
}  # fmt: skip
_STAMP = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T_ -]?(\d\d)[-:.h]?(\d\d)[-:.m]?(\d\d)(Z|[+-]\d\d:?\d\d)?")
_LOOK_S = 0.5


@dataclass
class Folder:
    """A growing folder.

    Args:
        path: of the folder.
        zone: time zone of the names.
        settle_s: a file that has not changed for so long is complete.
        done: names that were listened to before; grows.
        say: takes lines for the user.
    """

    path: Path
    zone: tzinfo | None
    settle_s: float
    done: set[str]
    say: Callable[[str], None]
    comes_back: bool = True
    is_folder: bool = True

    def items(self, rate: int, stop: threading.Event) -> Iterator[Item]:
        """Every file that is there or comes, until `stop`."""
        while not stop.is_set():
            ready = self._ready()
            for path in ready:
                yield from self._file(path, rate, stop)
                if stop.is_set():
                    return
                self.done.add(path.name)
                yield FileDone(path.name)
            if not ready:
                stop.wait(_LOOK_S)

    def _ready(self) -> list[Path]:
        try:
            names = [path for path in self.path.iterdir() if path.suffix.lower() in _ENDINGS]
            found = [(path, path.stat()) for path in names if path.name not in self.done and path.name[0] != "."]
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror or error}") from error
        settled = [path for path, status in found if time.time() - status.st_mtime >= self.settle_s]
        return sorted(settled, key=lambda path: (named_moment(path.name, self.zone) or path.stat().st_mtime, path.name))

    def _file(self, path: Path, rate: int, stop: threading.Event) -> Iterator[Item]:
        av = av_module()
        try:
            with av.open(str(path)) as container:
                if not container.streams.audio:
                    raise SourceError("has no audio track")
                wall = named_moment(path.name, self.zone)
                if wall is None:
                    wall = path.stat().st_mtime - (container.duration or 0) / 1e6
                yield Opened(wall, live=False, name=path.name)
                for samples in decoded(container, rate, path.name):
                    if stop.is_set():
                        return
                    yield Sound(samples, time.monotonic())
        except (av.error.FFmpegError, OSError, ValueError, SourceError) as error:
            reason = getattr(error, "strerror", None) or error
            self.say(f"{path}: cannot be listened to: {reason}; going on with the next file")


def named_moment(name: str, zone: tzinfo | None) -> float | None:
    """The moment in a file's name (`20261126T021307`, `2026-11-26_02-13-07+0100`), in seconds since 1970, or None."""
    found = _STAMP.search(name)
    if found is None:
        return None
    try:
        year, month, day, hour, minute, second = (int(group) for group in found.groups()[:6])
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    if found[7]:
        offset = "+00:00" if found[7] == "Z" else found[7]
        moment = datetime.fromisoformat(moment.replace(tzinfo=None).isoformat() + offset)
    return moment.timestamp()
