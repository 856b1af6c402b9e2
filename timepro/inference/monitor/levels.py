"""How loud it is: which windows are worth a question to the model, and which sounds are loud without one."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from timepro.inference.monitor.settings import Gate, Loud
from timepro.inference.monitor.tracker import Heard

BLOCK_S = 0.1
_BACKGROUND_BLOCKS = 600  # the last minute
_QUIETEST_DB = -120.0


class Levels:
    """Levels of a stream, one for each 100 ms, in dB of full scale (a sine at full scale has -3).

    Args:
        rate: of the samples.
        keep_s: for how long levels can be asked about.
    """

    def __init__(self, rate: int, keep_s: float) -> None:
        self._block = round(rate * BLOCK_S)
        self._held = np.empty(0, np.float32)
        self._begin = 0.0  # position of what is held
        self._recent: deque[tuple[float, float]] = deque(maxlen=math.ceil(keep_s / BLOCK_S) + 2)
        self._background: deque[float] = deque(maxlen=_BACKGROUND_BLOCKS)

    @property
    def now(self) -> float:
        """The last level."""
        return self._recent[-1][1] if self._recent else _QUIETEST_DB

    def push(self, position: float, samples: np.ndarray) -> list[tuple[float, float]]:
        """Take the next samples (N,); gives position and level of each whole block."""
        if not len(self._held) or abs(position - self._begin - len(self._held) / self._block * BLOCK_S) > BLOCK_S:
            self._held, self._begin = np.empty(0, np.float32), position  # behind a gap
        held = np.concatenate([self._held, samples])
        count = len(held) // self._block
        power = np.mean(held[: count * self._block].reshape(count, self._block).astype(np.float64) ** 2, axis=1)
        levels = np.maximum(10 * np.log10(power + 1e-30), _QUIETEST_DB).tolist()
        found = [(self._begin + i * BLOCK_S, level) for i, level in enumerate(levels)]
        self._held, self._begin = held[count * self._block :], self._begin + count * BLOCK_S
        self._recent.extend(found)
        self._background.extend(levels)
        return found

    def loudest(self, begin: float, end: float) -> float:
        """The highest level of the blocks that touch a stretch; what has not been measured counts as loud."""
        touching = [level for at, level in self._recent if at < end and at + BLOCK_S > begin]
        rest = self._held[: max(0, math.ceil((end - self._begin) / BLOCK_S * self._block))]
        if len(rest):  # the beginning of a block that is not whole yet
            touching.append(10 * math.log10(float(np.mean(rest.astype(np.float64) ** 2)) + 1e-30))
        return max(touching, default=0.0)

    def background(self) -> float:
        """The level that a tenth of the last minute is below."""
        levels = list(self._background)  # a copy: the page asks from another thread
        return float(np.percentile(levels, 10)) if levels else _QUIETEST_DB


def is_silent(levels: Levels, gate: Gate, begin: float, end: float) -> bool:
    """Whether a window need not be shown to the model."""
    loudest = levels.loudest(begin, end)
    if gate.above_background_db and loudest < levels.background() + gate.above_background_db:
        return True
    return gate.level_db > _QUIETEST_DB and loudest < gate.level_db


def loud_sounds(blocks: list[tuple[float, float]], loud: Loud) -> list[Heard]:
    """Loud blocks as sounds, neighbours as one."""
    found: list[Heard] = []
    for at, level in blocks if loud.level_db else []:
        if level < loud.level_db:
            continue
        if found and at - found[-1].offset < BLOCK_S / 2:
            found[-1] = Heard(found[-1].onset, at + BLOCK_S, loud.label, 1.0)
        else:
            found.append(Heard(at, at + BLOCK_S, loud.label, 1.0))
    return found
