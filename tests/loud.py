"""A scripted answerer that hears what is loud, and sound files with bursts at known times, for tests of detection."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from timepro.inference.detections import ConfidenceKind, Detection

BURSTS = ((1.0, 1.6), (9.2, 11.1), (20.3, 21.0))
SECONDS = 24.0
_FRAME = 160


class LoudAnswerer:
    """Scripted, in place of a model: an event "loud" where the level of 10 ms is above 0.05, 0.1 s of silence apart."""

    sample_rate, window_s = 16000, 10.0
    kind: ConfidenceKind | None = "probability"

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, windows: Sequence[np.ndarray]) -> list[list[Detection]]:
        self.asked += len(windows)
        return [self._loud(window) for window in windows]

    def _loud(self, window: np.ndarray) -> list[Detection]:
        if np.abs(window).max() < 0.05:
            return []
        frames = window[: len(window) // _FRAME * _FRAME].reshape(-1, _FRAME)
        loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 0.05)
        if not len(loud):
            return []
        groups = np.split(loud, np.flatnonzero(np.diff(loud) > 10) + 1)
        return [
            Detection(float(g[0]) / 100, float(g[-1] + 1) / 100, "loud", 0.9 if len(g) > 65 else 0.4) for g in groups
        ]


def bursts(rate: int, channels: int = 1, seconds: float = SECONDS) -> np.ndarray:
    """(N, channels): a tone of 440 Hz at the times of `BURSTS`, silence elsewhere."""
    time = np.arange(round(seconds * rate)) / rate
    on = np.any([(onset <= time) & (time < offset) for onset, offset in BURSTS], axis=0)
    tone = (0.3 * np.sin(2 * np.pi * 440 * time) * on).astype(np.float32)
    return np.tile(tone[:, None], (1, channels))


def write_media(
    path: Path,
    samples: np.ndarray | None,
    rate: int,
    codec: str = "aac",
    delay: float = 0.0,
    video: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """A file as cameras and phones write them, by PyAV. samples: (N, channels), or None for no audio track."""
    import av

    with av.open(str(path), "w", options=options or {}) as container:
        track: Any = None
        if samples is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
            track = container.add_stream(codec, rate=rate, layout=layout)
        if video:
            picture: Any = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 64
            for number in range(30):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts = number
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
        if samples is not None:
            for start in range(0, len(samples), 960):
                block = np.ascontiguousarray(samples[start : start + 960].T)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + round(delay * rate)
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path
