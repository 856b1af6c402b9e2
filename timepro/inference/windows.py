"""A stream of samples cut into overlapping windows, whatever the chunks that it comes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A piece of a stream.

    Args:
        start: position of the first sample in the stream.
        counts_from: position from which on events count; what stands before it is context of a last window, which is
            as long as the others.
        samples: (N,) mono.
    """

    start: int
    counts_from: int
    samples: np.ndarray

    @property
    def end(self) -> int:
        """Position behind the last sample."""
        return self.start + len(self.samples)


class WindowCutter:
    """Cuts a stream into windows of one length that overlap.

    Window k begins at `k * (length - overlap)`. The last one ends where the stream ends and is as long as the others; a
    stream shorter than a window is one short window. No more than a window and a chunk is held.

    Args:
        length: samples of a window.
        overlap: samples that two windows share, at most half of the length.
    """

    def __init__(self, length: int, overlap: int) -> None:
        if length < 1 or not 0 <= overlap <= length // 2:
            raise ValueError(
                f"a window of {length} samples, an overlap of {overlap}: the overlap is from 0 to half of the window"
            )
        self.length, self.hop = length, length - overlap
        self._held: list[np.ndarray] = []
        self._held_from, self._end = 0, 0  # positions of the first sample held and behind the last
        self._next = 0  # start of the next window

    def push(self, chunk: np.ndarray) -> Iterator[Window]:
        """Take the next samples (N,); gives the windows that they complete. Exhaust it before the next call."""
        if len(chunk):
            self._held.append(np.array(chunk))  # a copy: whoever gives chunks may fill the same array again
            self._end += len(chunk)
        while self._end >= self._next + self.length:
            yield self._window(self._next, self._next)
            self._next += self.hop

    def finish(self) -> Iterator[Window]:
        """The stream has ended: the last window, unless the windows so far reach its end."""
        if self._end > max(0, self._next - self.hop + self.length if self._next else 0):
            yield self._window(max(0, self._end - self.length), self._next)

    def _window(self, start: int, counts_from: int) -> Window:
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        first = start - self._held_from
        window = Window(start, counts_from, held[first : first + self.length].copy())
        # A last window may begin anywhere behind the start of this one.
        self._held, self._held_from = [held[first:]], start
        return window


def cut(chunks: Iterable[np.ndarray], length: int, overlap: int) -> Iterator[Window]:
    """The windows of a stream, as `WindowCutter` cuts them.

    Args:
        chunks: arrays (N,), one behind the other.
        length, overlap: in samples.
    """
    cutter = WindowCutter(length, overlap)
    for chunk in chunks:
        yield from cutter.push(chunk)
    yield from cutter.finish()
