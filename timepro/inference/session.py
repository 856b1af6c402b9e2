"""One stream on its way through a detector: chunks in, events out as soon as they are final."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from timepro.inference.detections import ConfidenceKind, Detection
from timepro.inference.resampling import Resampler
from timepro.inference.stitching import Stitcher
from timepro.inference.windows import BLOCK_S, Window, WindowCutter


class WindowAnswerer(Protocol):
    """Whatever says which events are in a window: a model in this process, a server, a script in a test.

    Attributes:
        sample_rate: of the windows it takes, in Hz.
        window_s: the length of window it was made for, in seconds.
        kind: of its confidences; None where it gives none.
    """

    sample_rate: int
    window_s: float
    kind: ConfidenceKind | None

    def answer(self, windows: Sequence[np.ndarray]) -> list[list[Detection]]:
        """The events of each window.

        Args:
            windows: mono waveforms (N,), float32 in [-1, 1].

        Returns:
            for each window its events, with times in seconds from the window's start, whatever their confidence.
        """
        ...


class Session:
    """One stream: `push` its samples, `finish` it; both give the events that are final, in order of their onsets.

    Made by `Detector.session`.

    Args:
        answerer: asked about each window.
        rate: of the samples that are pushed.
        window_s, overlap_s, gap_s: in seconds; the window is the longest one.
        even: cut windows of one length, instead of ending each where it is quietest.
        keeps: whether an event is reported.
        batch: windows that are asked about together. One at a time is soonest, for a stream that is live.
        below: also stitch the events that are not reported, on their own, into `self.below`.
    """

    def __init__(
        self,
        answerer: WindowAnswerer,
        rate: int,
        window_s: float,
        overlap_s: float,
        gap_s: float,
        keeps: Callable[[Detection], bool],
        batch: int = 1,
        below: bool = False,
        even: bool = False,
    ) -> None:
        self.below: list[Detection] = []
        self._answerer, self._keeps, self._batch = answerer, keeps, batch
        self._model_rate = answerer.sample_rate
        self._resampler = Resampler(rate, self._model_rate)
        length, overlap = round(window_s * self._model_rate), round(overlap_s * self._model_rate)
        block = max(1, round(BLOCK_S * self._model_rate))
        self._cutter = WindowCutter(length, overlap, length if even else None, block)
        self._stitcher, self._of_others = (
            Stitcher(self._cutter.hop / self._model_rate, overlap_s, gap_s) for _ in range(2)
        )
        self._with_others = below
        self._waiting: list[Window] = []
        self._rate, self._pushed = rate, 0

    @property
    def seconds(self) -> float:
        """Length of what was pushed so far."""
        return self._pushed / self._rate

    def push(self, chunk: np.ndarray) -> list[Detection]:
        """Take the next samples.

        Args:
            chunk: (N,) or (N, channels), floats in [-1, 1] or whole numbers (int16, int32, uint8).

        Raises:
            ValueError: an array of another shape or type, or NaN or infinite samples, saying where in the stream.
        """
        samples = mono(chunk, self.seconds)
        self._pushed += len(samples)
        return self._take(self._resampler.push(samples))

    def finish(self) -> list[Detection]:
        """The stream has ended: what was not given yet."""
        found = self._take(self._resampler.finish())
        self._waiting += self._cutter.finish()
        found += self._ask(len(self._waiting))
        self.below += self._of_others.finish()
        return found + self._stitcher.finish()

    def _take(self, samples: np.ndarray) -> list[Detection]:
        found: list[Detection] = []
        for window in self._cutter.push(samples):
            self._waiting.append(window)
            if len(self._waiting) >= self._batch:
                found += self._ask(self._batch)
        return found

    def _ask(self, count: int) -> list[Detection]:
        windows, self._waiting = self._waiting[:count], self._waiting[count:]
        if not windows:
            return []
        found: list[Detection] = []
        told = self._answerer.answer([window.samples for window in windows])
        for window, events in zip(windows, told, strict=True):
            span = (window.counts_from / self._model_rate, window.end / self._model_rate)
            placed = [event.shifted(window.start / self._model_rate) for event in events]
            found += self._stitcher.add(*span, [event for event in placed if self._keeps(event)])
            if self._with_others:
                self.below += self._of_others.add(*span, [event for event in placed if not self._keeps(event)])
        return found


def mono(chunk: np.ndarray, at: float = 0.0) -> np.ndarray:
    """(N,) float32, the mean of the channels of a chunk. Args and Raises as `Session.push`.

    Args:
        at: the chunk's place in its stream in seconds, for the message.
    """
    if not isinstance(chunk, np.ndarray) or chunk.ndim not in (1, 2) or chunk.dtype.kind not in "fiu":
        what = f"shape {chunk.shape} and type {chunk.dtype}" if isinstance(chunk, np.ndarray) else type(chunk).__name__
        raise ValueError(f"a chunk of audio is {what}; give an array (N,) or (N, channels) of numbers")
    if chunk.dtype.kind != "f":
        limits = np.iinfo(chunk.dtype)
        middle = (limits.max + limits.min + 1) / 2  # 0, or of unsigned samples the middle
        chunk = ((chunk - middle) / (limits.max - middle + 1)).astype(np.float32)
    samples = chunk.astype(np.float32, copy=False)
    if samples.ndim == 2:
        samples = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    finite = np.isfinite(samples)
    if not finite.all():
        where = int(np.argmin(finite))
        raise ValueError(
            f"holds NaN or infinite samples, the first one {where} samples behind {at:.3f} s; export it again"
        )
    return samples
