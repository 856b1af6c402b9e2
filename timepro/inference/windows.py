"""A stream of samples cut into overlapping windows, whatever the chunks that it comes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

BLOCK_S = 0.01  # over which loudness is measured
_SMOOTHED = 20  # blocks: a shorter pause lies within a sound


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
    """Cuts a stream into windows that overlap, each ending at the quietest moment that there is for it.

    A model is trained on clips that begin and end between sounds. So a window ends where its last half is quietest,
    half an overlap behind that moment, and is at most `length` long; the next one begins half an overlap before it.
    With `shortest` equal to `length` all windows are as long: window k begins at `k * (length - overlap)`. Where
    windows lie depends on the samples alone, not on the chunks that they come in. The last window ends where the
    stream ends, and is at least `shortest` long unless the stream is shorter. No more than two windows and a chunk are
    held.

    Args:
        length: samples of the longest window.
        overlap: samples that two windows share, at most half of `shortest`.
        shortest: samples of the shortest window; by default half of the longest, or twice the overlap where that is
            more.
        block: samples over which loudness is measured.
    """

    def __init__(self, length: int, overlap: int, shortest: int | None = None, block: int = 160) -> None:
        shortest = max(-(-length // 2), min(2 * overlap, length)) if shortest is None else shortest
        if length < 1 or not 0 <= 2 * overlap <= shortest <= length or block < 1:
            raise ValueError(
                f"windows of {shortest} to {length} samples, an overlap of {overlap}: the overlap is from 0 to half of "
                "the shortest window"
            )
        self.length, self.shortest, self.overlap = length, shortest, overlap
        self._block = block
        self._held: list[np.ndarray] = []
        self._held_from, self._end = 0, 0  # positions of the first sample held and behind the last
        self._next = 0  # start of the next window
        self._reached = 0  # end of the last window

    @property
    def hop(self) -> int:
        """Samples after which the next window begins, at least."""
        return self.shortest - self.overlap

    def push(self, chunk: np.ndarray) -> Iterator[Window]:
        """Take the next samples (N,); gives the windows that they complete. Exhaust it before the next call."""
        if len(chunk):
            self._held.append(np.array(chunk))  # a copy: whoever gives chunks may fill the same array again
            self._end += len(chunk)
        while self._end >= self._next + self.length:
            start = self._next
            self._reached = start + self._quiet_end(self._samples(start, start + self.length))
            self._next = self._reached - self.overlap
            yield self._window(start, self._reached, start)

    def finish(self) -> Iterator[Window]:
        """The stream has ended: the last window, unless the windows so far reach its end."""
        if self._end > self._reached:
            start = max(min(self._next, self._end - self.shortest), 0)
            yield self._window(start, self._end, self._next)

    def _quiet_end(self, samples: np.ndarray) -> int:
        """How long a window is that begins with these samples (`length`,)."""
        if self.shortest == self.length:
            return self.length
        blocks = samples[: len(samples) // self._block * self._block].reshape(-1, self._block).astype(np.float64)
        summed = np.cumsum(np.concatenate([[0.0], np.square(blocks).mean(axis=1)]))
        power = summed[_SMOOTHED:] - summed[:-_SMOOTHED]  # over blocks i to i + _SMOOTHED
        ends = (np.arange(len(power)) + _SMOOTHED // 2) * self._block + self.overlap // 2
        may = (ends >= self.shortest) & (ends <= self.length)
        if not may.any():
            return self.length
        quietest = np.flatnonzero(may & (power <= power[may].min()))
        return int(ends[quietest[-1]])  # of equally quiet ones, as in digital silence, the last: fewer windows

    def _samples(self, start: int, end: int) -> np.ndarray:
        if len(self._held) > 1:
            self._held = [np.concatenate(self._held)]
        return self._held[0][start - self._held_from : end - self._held_from]

    def _window(self, start: int, end: int, counts_from: int) -> Window:
        window = Window(start, counts_from, self._samples(start, end).copy())
        # A last window may begin anywhere behind the start of this one.
        self._held, self._held_from = [self._held[0][start - self._held_from :]], start
        return window


def cut(
    chunks: Iterable[np.ndarray], length: int, overlap: int, shortest: int | None = None, block: int = 160
) -> Iterator[Window]:
    """The windows of a stream, as `WindowCutter` cuts them.

    Args:
        chunks: arrays (N,), one behind the other.
        length, overlap, shortest, block: in samples.
    """
    cutter = WindowCutter(length, overlap, shortest, block)
    for chunk in chunks:
        yield from cutter.push(chunk)
    yield from cutter.finish()
