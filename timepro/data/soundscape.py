"""What a synthetic soundscape is like: `data.soundscape.*`. Making one is `synth.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from timepro.config.marks import Count, Decibels, Natural, NotNegative, Positive, Share, at_least, between
from timepro.data.sounds import SAMPLE_RATE, SOUNDS


@dataclass
class SoundscapeConfig:
    """What the synthesiser draws from. Seconds, decibels (dB) and probabilities."""

    min_duration: Annotated[float, at_least(1)] = 4.0
    max_duration: Annotated[float, at_least(1)] = 10.0
    min_events: Natural = 1
    max_events: Natural = 4
    max_polyphony: Count = 2
    """Events that may sound at once; two of one class never overlap."""
    background_noise: bool = True
    snr_min_db: Decibels = 0.0
    snr_max_db: Decibels = 25.0
    """Of an event at 0 dB gain against the background, both by RMS."""
    fade_in_max: NotNegative = 0.0
    fade_out_max: NotNegative = 0.0
    """Longest fade at an event's edges in seconds; each is drawn from 0 to here, and takes half of the event at most.
    The labels stay exact, but noise covers a faded edge: when it began can only be judged, as with a passing car."""
    gain_min_db: Decibels = -6.0
    gain_max_db: Decibels = 6.0
    peak_min_db: Annotated[float, between(-120, 0)] = -18.0
    peak_max_db: Annotated[float, between(-120, 0)] = -1.0
    """The clip's peak, relative to full scale."""
    same_class_gap: NotNegative = 0.3
    time_grid: Positive = 0.04
    onset_lag_mean: Annotated[float, between(-10, 10)] = 0.24
    onset_lag_std: Annotated[float, between(0, 10)] = 0.06
    offset_lag_mean: Annotated[float, between(-10, 10)] = 0.24
    offset_lag_std: Annotated[float, between(0, 10)] = 0.08
    absent_query_probability: Share = 0.0
    """Chance that a clip also gets one query for a class it does not contain (no intervals)."""
    equalizer_probability: Share = 0.25
    equalizer_gain_db: Decibels = 9.0
    """Largest boost or cut of the random equaliser that `augment` applies."""
    classes: list[str] = field(default_factory=lambda: list(SOUNDS))


def check_soundscape(config: SoundscapeConfig) -> None:
    """Raise ValueError, naming the key, for settings that no soundscape can satisfy."""
    low_high = (("min_duration", "max_duration"), ("min_events", "max_events"), ("snr_min_db", "snr_max_db"),
                ("gain_min_db", "gain_max_db"), ("peak_min_db", "peak_max_db"))  # fmt: skip
    for low, high in low_high:
        if getattr(config, low) > getattr(config, high):
            raise ValueError(f"{low} ({getattr(config, low)}) is above {high} ({getattr(config, high)}); swap them")
    samples = config.time_grid * SAMPLE_RATE
    if config.time_grid <= 0 or abs(samples - round(samples)) > 1e-6:
        raise ValueError(
            f"time_grid ({config.time_grid} s) is not a whole number of samples at {SAMPLE_RATE} Hz; use 0.04"
        )
    if config.min_events < 0 or config.max_polyphony < 1 or config.same_class_gap < 0:
        raise ValueError("min_events and same_class_gap must be at least 0, max_polyphony at least 1")
    if config.min_duration < 1:
        raise ValueError(f"min_duration ({config.min_duration} s) must be at least 1 s: some classes last that long")
    for key in ("fade_in_max", "fade_out_max"):
        if getattr(config, key) < 0:
            raise ValueError(f"{key} ({getattr(config, key)} s) must be at least 0")
    if config.peak_max_db > 0:
        raise ValueError(f"peak_max_db ({config.peak_max_db} dB) is above full scale; use 0 or less")
    for key in ("equalizer_probability", "absent_query_probability"):
        if not 0 <= getattr(config, key) <= 1:
            raise ValueError(f"{key} ({getattr(config, key)}) is not a probability; use 0 to 1")
    unknown = [name for name in config.classes if name not in SOUNDS]
    if unknown or not config.classes or len(set(config.classes)) < len(config.classes):
        raise ValueError(f"classes ({config.classes}): name each class once, out of {', '.join(SOUNDS)}")
