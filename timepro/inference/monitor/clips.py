"""The sound of alerts: the last minutes in memory, and flac files cut from them."""

from __future__ import annotations

import io
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

import numpy as np

from timepro.inference.monitor.settings import Clips
from timepro.inference.monitor.timeline import file_stamp
from timepro.system.files import write_bytes

_LOUDEST = 32767


class Ring:
    """The last seconds of a stream as 16-bit samples, by position.

    Args:
        rate: of the samples.
        seconds: that are kept.
    """

    def __init__(self, rate: int, seconds: float) -> None:
        self.rate, self.seconds = rate, seconds
        self._pieces: deque[tuple[float, np.ndarray]] = deque()

    @property
    def end(self) -> float:
        """Position behind the last sample; 0 without any."""
        if not self._pieces:
            return 0.0
        at, piece = self._pieces[-1]
        return at + len(piece) / self.rate

    def push(self, position: float, samples: np.ndarray) -> None:
        """Take the next samples (N,), floats in [-1, 1]."""
        self._pieces.append((position, (np.clip(samples, -1, 1) * _LOUDEST).astype(np.int16)))
        while self._pieces[0][0] + len(self._pieces[0][1]) / self.rate < self.end - self.seconds:
            self._pieces.popleft()

    def cut(self, begin: float, end: float) -> np.ndarray:
        """The samples (N,) of a stretch, as far as they are kept; gaps of the stream are silence."""
        parts = [(at, piece) for at, piece in self._pieces if at < end and at + len(piece) / self.rate > begin]
        if not parts:
            return np.empty(0, np.int16)
        begin = max(begin, parts[0][0])
        end = min(end, parts[-1][0] + len(parts[-1][1]) / self.rate)
        out = np.zeros(max(0, round((end - begin) * self.rate)), np.int16)
        for at, piece in parts:
            place = round((at - begin) * self.rate)
            source = piece[max(0, -place) :][: len(out) - max(0, place)]
            out[max(0, place) : max(0, place) + len(source)] = source
        return out


@dataclass
class _Pending:
    path: Path
    onset: float
    offset: float | None = None


class ClipWriter:
    """Writes the clips of events, each once its post-roll has been heard.

    Args:
        folder: for the clips, in one folder a day.
        settings: lengths, and how long clips are kept.
        ring: the sound; must keep the longest clip and what the model takes to hear it.
        zone: time zone of the names.
        say: takes lines for the user.
    """

    def __init__(
        self, folder: Path, settings: Clips, ring: Ring, zone: tzinfo | None, say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self._settings, self._ring, self._zone, self._say = settings, ring, zone, say
        self._pending: dict[str, _Pending] = {}
        self._swept = -1e9

    def begin(self, event: str, label: str, onset: float, wall: float) -> str:
        """Announce a clip; returns its path within the folder, named by the moment of the onset."""
        stamp = file_stamp(wall, self._zone)
        name = re.sub(r"[^\w.-]+", "_", label).strip("_.")[:60] or "event"
        path = f"{stamp[:8]}/{stamp}_{name}_{event[:6]}.flac"
        self._pending[event] = _Pending(self.folder / path, onset)
        return path

    def end(self, event: str, offset: float) -> None:
        """The event has ended: its clip is written once the post-roll is there."""
        if event in self._pending:
            self._pending[event].offset = offset

    def tick(self, position: float, is_over: bool = False) -> None:
        """Write clips that are complete at this position, or all: the stream is over."""
        for event, one in list(self._pending.items()):
            last = one.onset - self._settings.pre_roll_s + self._settings.longest_s
            if one.offset is not None:
                last = min(last, one.offset + self._settings.post_roll_s)
            if is_over or position >= last:
                del self._pending[event]
                self._write(one.path, one.onset - self._settings.pre_roll_s, last)

    def is_coming(self, event: str) -> bool:
        """Whether a clip is still to be written."""
        return event in self._pending

    def sweep(self) -> None:
        """Remove clips that are too old, and the oldest where all are too large; at most once an hour."""
        if time.monotonic() - self._swept < 3600:
            return
        self._swept = time.monotonic()
        files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.glob("*/*.flac"))
        total, oldest = sum(size for _, size, _ in files), time.time() - self._settings.keep_days * 86400
        for moment, size, path in files:
            if moment >= oldest and total <= self._settings.most_mib * 2**20:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _write(self, path: Path, begin: float, end: float) -> None:
        import soundfile

        samples, content = self._ring.cut(begin, end), io.BytesIO()
        if not len(samples):
            return
        soundfile.write(content, samples, self._ring.rate, format="FLAC")
        try:
            write_bytes(path, content.getvalue())
        except OSError as error:
            self._say(f"the clip {path} cannot be written: {error.strerror or error}; its alert is told all the same")
