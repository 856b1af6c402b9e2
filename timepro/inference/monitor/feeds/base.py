"""What a source of sound is, and what comes out of one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Opened:
    """Sound follows.

    Args:
        wall: moment of its first sample; None for now.
        live: it comes as it happens: whoever is slow loses some, and clocks can be compared.
        name: of a folder's file.
    """

    wall: float | None = None
    live: bool = True
    name: str = ""


@dataclass(frozen=True, eq=False)
class Sound:
    """Samples (N,), mono float32 in [-1, 1], and when they came in by a clock that only runs."""

    samples: np.ndarray
    arrived: float


@dataclass(frozen=True)
class Skipped:
    """So many seconds of sound were dropped here, since nobody was quick enough."""

    seconds: float


@dataclass(frozen=True)
class FileDone:
    """All of a folder's file has come."""

    name: str


@dataclass(frozen=True)
class Closed:
    """The connection is gone, and why."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """Nothing will come any more."""

    reason: str


Item = Opened | Sound | Skipped | FileDone | Closed | Finished


class SourceError(Exception):
    """A source that cannot be opened or read, in words for the user."""


class Source(Protocol):
    """One source.

    Args:
        comes_back: after its end it may be opened again.
        is_folder: its sound comes file by file, minutes apart.
    """

    comes_back: bool
    is_folder: bool

    def items(self, rate: int, stop: threading.Event) -> Iterator[Item]:
        """One connection, from its opening to its end.

        Args:
            rate: of the samples that are wanted.
            stop: set when nobody listens any more.

        Raises:
            SourceError: it cannot be opened, or breaks.
        """
