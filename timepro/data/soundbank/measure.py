"""Where a recording's sound begins and ends, and what is wrong with it.

The level is the RMS of steps of 10 ms. The sound begins with the first sample that reaches the threshold, which lies
`trim_db` below the loudest step, in the first step of that level or just before it, and ends with the last such
sample: what is quieter at both ends is not part of the event, and its label is exact to the sample.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from timepro.data.audio import audio_blocks, check_audio, read_audio, read_header
from timepro.data.sounds import SAMPLE_RATE

STEP = SAMPLE_RATE // 100
SHORTEST_S = 0.08
"""Of what is left after trimming."""
LONGEST_S = 120.0
"""Of a recording of a class, which is decoded whole."""
PAUSE_S = 0.3
"""A silence inside a recording that may make two events of it."""
_SILENT = 10 ** (-70 / 20)  # of full scale, the loudest step's RMS
_FULL = 0.999  # of the peak: where a clipped recording lies flat
_LEAST_PEAK = 0.5
_FLAT = 4  # samples in a row


@dataclass(frozen=True, slots=True)
class Measured:
    """What a file holds.

    Args:
        rate, channels, seconds: of the file itself.
        start, stop: the sound, in samples at 16 kHz; (0, 0) for a background, which is not trimmed.
        pause: the longest silence inside, in seconds.
        clipped: whether its peaks lie flat.
        content: a digest of its bytes.
        problem: why it cannot be used; "" where it can.
    """

    rate: int = 0
    channels: int = 0
    seconds: float = 0.0
    start: int = 0
    stop: int = 0
    pause: float = 0.0
    clipped: bool = False
    content: str = ""
    problem: str = ""


def measure(path: Path, trim_db: float, background: bool) -> Measured:
    """Read and measure a recording; a file that cannot be read is a `problem`, not an exception."""
    try:
        header = check_audio(path) if background else read_header(path)
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        facts = Measured(header.rate, header.channels, header.duration, content=content)
        if background:
            return replace(facts, problem=_background_problem(path, header.duration))
        if header.duration > LONGEST_S:
            return replace(
                facts, problem=f"lasts {header.duration:.0f} s, more than {LONGEST_S:.0f}; cut single sounds out of it"
            )
        found = _sound(facts, read_audio(path, SAMPLE_RATE), trim_db)
        # Of the file's own samples: another rate rounds flat peaks off.
        return replace(found, clipped=is_clipped(np.concatenate([*audio_blocks(path)])))
    except (OSError, ValueError) as error:
        return Measured(problem=str(error).removeprefix(f"{path}: "))


def _background_problem(path: Path, seconds: float) -> str:
    if seconds < 1:
        return f"lasts {seconds:.2f} s; a background needs a second at least"
    heard = any(np.sqrt(np.mean(block.astype(np.float64) ** 2)) >= _SILENT for block in audio_blocks(path))
    return "" if heard else "is silent; replace or remove it"


def _sound(facts: Measured, samples: np.ndarray, trim_db: float) -> Measured:
    levels = step_levels(samples)
    loudest = float(levels.max(initial=0.0))
    if loudest < _SILENT:
        return replace(facts, problem="is silent; replace or remove it")
    loud = levels >= loudest * 10 ** (-trim_db / 20)
    start, stop = bounds(samples, loud, loudest * 10 ** (-trim_db / 20))
    seconds = (stop - start) / SAMPLE_RATE
    problem = "" if seconds >= SHORTEST_S else (
        f"its sound lasts {seconds:.3f} s, less than {SHORTEST_S} s; remove it, or raise data.bank.trim_db"
    )  # fmt: skip
    steps = np.flatnonzero(loud)
    pause = (int(np.diff(steps).max(initial=1)) - 1) * STEP / SAMPLE_RATE
    return replace(facts, start=start, stop=stop, pause=pause, problem=problem)


def step_levels(samples: np.ndarray) -> np.ndarray:
    """RMS of each 10 ms of (N,) samples, the last step padded with silence: (ceil(N / 160),)."""
    whole = np.pad(samples, (0, -len(samples) % STEP)).reshape(-1, STEP)
    return np.sqrt(np.mean(whole.astype(np.float64) ** 2, axis=1))


def bounds(samples: np.ndarray, loud: np.ndarray, threshold: float) -> tuple[int, int]:
    """First sample of the sound, and the one behind its last.

    Args:
        loud: which steps are at or above the threshold; at least one is.
    """
    steps = np.flatnonzero(loud)
    # The step before may end with the first instants of the sound, too few to make it loud.
    first, last = max(0, int(steps[0]) - 1) * STEP, (int(steps[-1]) + 2) * STEP
    reached = np.flatnonzero(np.abs(samples[first:last]) >= threshold)
    return first + int(reached[0]), first + int(reached[-1]) + 1


def is_clipped(samples: np.ndarray) -> bool:
    """Whether a loud recording, (N, channels), stays at its peak for several samples in a row."""
    level = np.abs(samples)
    peak = float(level.max(initial=0.0))
    flat = (level >= _FULL * peak).all(axis=1) if peak > _LEAST_PEAK else np.zeros(len(samples), bool)
    return bool(np.convolve(flat, np.ones(_FLAT), "valid").max(initial=0) >= _FLAT)
