"""A spectrogram of a recording of any length that is read once, piece by piece, in memory that does not grow."""

from __future__ import annotations

import io

import numpy as np

from timepro.plots.spectrogram import HOP, RATE, WINDOW, colour_range, mel_of_windows

MAX_COLUMNS = 4096
_BATCH = 1000  # windows whose spectra are held at a time


class RunningSpectrogram:
    """Columns of 10 ms; two at a time become one, the louder in each row, whenever there are more than `max_columns`.

    So a short sound stays visible in an hour's picture. Equal to `log_mel` as long as nothing has been merged.
    """

    def __init__(self, max_columns: int = MAX_COLUMNS) -> None:
        self._most, self._merged = max_columns, 1  # windows in a column
        self._held = np.zeros(WINDOW // 2, np.float32)  # the first window is centred on the first sample
        self._columns = np.zeros((0, 0), np.float32)
        self._rest = self._columns  # windows that are not a whole column yet

    def push(self, samples: np.ndarray) -> None:
        """Take the next samples (N,), mono at 16 kHz, of any number."""
        self._held = np.concatenate([self._held, samples.astype(np.float32, copy=False)])
        while (windows := min(_BATCH, (len(self._held) - WINDOW) // HOP + 1)) > 0:
            part = self._held[: (windows - 1) * HOP + WINDOW]
            self._take(mel_of_windows(part, HOP).astype(np.float32))
            self._held = self._held[windows * HOP :]

    def _take(self, windows: np.ndarray) -> None:
        whole = np.concatenate([self._rest, windows], axis=1) if self._rest.size else windows
        full = whole.shape[1] // self._merged * self._merged
        self._rest = whole[:, full:]
        new = whole[:, :full].reshape(len(whole), -1, self._merged).max(axis=2)
        self._columns = np.concatenate([self._columns, new], axis=1) if self._columns.size else new
        while self._columns.shape[1] > self._most:
            even = self._columns.shape[1] // 2 * 2
            odd = self._columns[:, even:]  # half a column of the new width: its windows wait for the other half
            self._columns = self._columns[:, :even].reshape(len(whole), -1, 2).max(axis=2)
            self._rest = np.concatenate([np.repeat(odd, self._merged, axis=1), self._rest], axis=1)
            self._merged *= 2

    def finish(self) -> tuple[np.ndarray, float]:
        """The stream has ended.

        Returns:
            decibels (96, columns), at least one column, and the seconds from one to the next.
        """
        self.push(np.zeros(WINDOW // 2, np.float32))
        if self._rest.size:
            last = self._rest.max(axis=1, keepdims=True)
            self._columns = np.concatenate([self._columns, last], axis=1) if self._columns.size else last
            self._rest = self._rest[:, :0]
        if not self._columns.size:
            self._columns = mel_of_windows(np.pad(self._held, (0, WINDOW)), HOP)[:, :1].astype(np.float32)
        return self._columns, self._merged * HOP / RATE


def grey_png(decibels: np.ndarray) -> bytes:
    """A PNG of decibels (rows, columns): 0 is the darkest colour, the lowest frequency is at the bottom."""
    from PIL import Image

    floor, peak = colour_range(decibels)
    grey = np.clip((decibels[::-1] - floor) / (peak - floor) * 255, 0, 255).round().astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey, "L").save(out, "PNG", optimize=True)
    return out.getvalue()
