"""Named spans of a step, such as its backward pass: marked where they happen, noticed only while a profile is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class Spans:
    """Where spans are told to.

    Attributes:
        listener: gives a context for a span's name; None: nobody listens, and a span costs a microsecond.
    """

    def __init__(self) -> None:
        self.listener: Callable[[str], AbstractContextManager[None]] | None = None

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Mark what happens inside."""
        if self.listener is None:
            yield
            return
        with self.listener(name):
            yield


span = Spans()
