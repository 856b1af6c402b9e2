"""Signals of the launcher: the first SIGINT or SIGTERM becomes an exception, later ones wait for the cleaning up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Within this context SIGINT and SIGTERM raise `Interrupted` once; later ones are ignored while cleaning up."""

    def handler(number: int, frame: FrameType | None) -> None:
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.SIG_IGN)
        raise Interrupted(number)

    before = {sign: signal.signal(sign, handler) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, previous in before.items():
            signal.signal(sign, previous)
