"""Sound in, what is heard in it out: in windows, of which those with sound in them are shown to the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from timepro.inference.detections import Detection
from timepro.inference.monitor.levels import Levels, is_silent
from timepro.inference.monitor.settings import Gate
from timepro.inference.monitor.tracker import Heard
from timepro.inference.session import WindowAnswerer

_MOST_FAILED = 10  # windows that are not answered, one behind the other: then the model is broken
_LEAST_S = 0.1  # what is left of a stream's end and shorter is not asked about


class Listener:
    """Windows of one stream, each of which is believed at once: windows overlap, and what one misses another may hear.

    A sound that several windows tell is one event all the same, see `Tracker`.

    Args:
        answerer: asked about each window with sound.
        window_s: length of a window.
        hop_s: from one window to the next.
        gate: which windows are silent.
        levels: of this stream.
        say: takes lines for the user.
    """

    def __init__(
        self,
        answerer: WindowAnswerer,
        window_s: float,
        hop_s: float,
        gate: Gate,
        levels: Levels,
        say: Callable[[str], None],
    ) -> None:
        self._answerer, self._gate, self._levels, self._say = answerer, gate, levels, say
        self._failed = 0  # windows, one behind the other
        self._rate = answerer.sample_rate
        self._length, self._hop = round(window_s * self._rate), max(1, round(hop_s * self._rate))
        self._held = np.empty(0, np.float32)
        self._begin = 0.0  # position of what is held
        self._seen_until: float | None = None  # by windows of this stretch
        self.heard_until = 0.0
        self.asked, self.silent, self.asking_s = 0, 0, 0.0
        self.last: tuple[float, list[Detection]] = (0.0, [])  # what the last window with sound held, at which position

    @property
    def waits(self) -> bool:
        """Whether there is sound that no window has told yet."""
        return self._end - (self._seen_until or self._begin) >= _LEAST_S

    @property
    def _end(self) -> float:
        return self._begin + len(self._held) / self._rate

    def push(self, position: float, samples: np.ndarray) -> list[Heard]:
        """Take the next samples (N,), at a position that follows on the last one."""
        if not len(self._held):
            self._begin, self._seen_until = position, None
            self.heard_until = max(self.heard_until, position)
        self._held = np.concatenate([self._held, samples])
        found: list[Heard] = []
        while len(self._held) >= self._length:
            found += self._window(self._begin, self._held[: self._length])
            self._held = self._held[self._hop :]
            self._begin += self._hop / self._rate
        return found

    def finish(self) -> list[Heard]:
        """The stretch ends here: what was not told yet."""
        found: list[Heard] = []
        if self._end - (self._seen_until or self._begin) >= _LEAST_S:
            found = self._window(self._begin, self._held)
        self.heard_until = max(self.heard_until, self._end)
        self._held, self._seen_until = np.empty(0, np.float32), None
        return found

    def _window(self, begin: float, samples: np.ndarray) -> list[Heard]:
        end = begin + len(samples) / self._rate
        self._seen_until, self.heard_until = end, max(self.heard_until, end)
        return [
            Heard(begin + s.onset, begin + s.offset, s.label, 1.0 if s.confidence is None else s.confidence)
            for s in self._ask(begin, end, samples)
        ]

    def _ask(self, begin: float, end: float, samples: np.ndarray) -> Sequence[Detection]:
        if is_silent(self._levels, self._gate, begin, end):
            self.silent += 1
            return []
        self.asked += 1
        started = time.monotonic()
        try:
            [sounds] = self._answerer.answer([samples])
            self._failed = 0
        except Exception as error:  # one window that a model chokes on must not end a watch of weeks
            self._failed += 1
            self._say(f"a window of {end - begin:.1f} s was not answered: {type(error).__name__}: {error}")
            if self._failed >= _MOST_FAILED:
                raise
            return []
        finally:
            self.asking_s += time.monotonic() - started
        self.last = (end, sounds)
        return sorted(sounds)
