"""How the recordings of a sound bank are used: `data.bank.*`. Which bank is `data.soundbank`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from timepro.config.marks import Decibels, Natural, NotNegative, Positive, Share, above, between

PARTS = ("training", "validation", "test")
"""The parts of a bank, which share no source. SFT and RL draw from the first."""


@dataclass
class BankConfig:
    """What is mixed from a bank's recordings. Levels, durations and numbers of events are `data.soundscape`'s."""

    classes: list[str] = field(default_factory=list)
    """Sub-folders to use; empty for all. (`data.soundscape.classes` are the synthesiser's.)"""
    trim_db: Annotated[float, between(10, 90)] = 30.0
    """A sound begins and ends where its level passes so many dB below its loudest 10 ms."""
    max_seconds: Annotated[float, above(0.1)] = 4.0
    """Longest event: of a longer recording another piece is taken each time."""
    validation_share: Share = 0.2
    test_share: Share = 0.2
    """Of a class's sources, one at least; the rest is for training."""
    split_seed: Natural = 0
    reverberation_probability: Share = 0.25
    """Chance that a clip is heard in a room. Labels are the direct sound's; the room's tail is behind them."""
    reverberation_min_s: Positive = 0.15
    reverberation_max_s: Positive = 0.6
    """The time in which the tail falls by 60 dB."""
    reverberation_min_db: Decibels = -18.0
    reverberation_max_db: Decibels = -6.0
    """The tail's energy against the direct sound's."""
    memory_mib: NotNegative = 256.0
    """Decoded recordings that each of the mixing processes keeps."""


def check_bank_config(config: BankConfig) -> None:
    """Raise ValueError, naming the key, for settings that nothing can be mixed with."""
    for name in ("reverberation_{}_s", "reverberation_{}_db"):
        low, high = name.format("min"), name.format("max")
        least, most = getattr(config, low), getattr(config, high)
        if least > most:
            raise ValueError(f"data.bank.{low} ({least}) is above data.bank.{high} ({most}); swap them")
    if config.validation_share + config.test_share >= 1:
        raise ValueError(
            f"data.bank.validation_share ({config.validation_share}) and data.bank.test_share ({config.test_share}) "
            "leave nothing for training; their sum must be below 1"
        )
    if len(set(config.classes)) < len(config.classes):
        raise ValueError(f"data.bank.classes ({config.classes}) names a class twice")
