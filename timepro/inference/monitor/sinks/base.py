"""What a receiver is."""

from __future__ import annotations

from typing import Protocol

from timepro.inference.monitor.messages import Message


class Later(Exception):
    """It could not be delivered now, whatever the message: to be tried again for as long as it takes."""


class Refused(Exception):
    """The receiver does not want this message: to be tried again a few times, then put aside."""


class Sink(Protocol):
    """A receiver.

    Args:
        name: of its queue on disk, unique among a monitor's sinks.
    """

    name: str

    def start(self) -> None:
        """Called once, before the first message."""

    def send(self, message: Message) -> None:
        """Deliver one message; returns once the receiver has it.

        Raises:
            Later: not now.
            Refused: not this one.
        """

    def close(self) -> None:
        """Let go of connections."""
