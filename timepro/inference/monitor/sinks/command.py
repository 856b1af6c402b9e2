"""Messages as JSON on the standard input of a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence

from timepro.inference.monitor.messages import Message
from timepro.inference.monitor.sinks.base import Later, Refused


class CommandSink:
    """Runs a program for each message.

    Args:
        name: of its queue.
        words: the program and its arguments.
        timeout_s: then it is ended, with what it has started.
    """

    def __init__(self, name: str, words: Sequence[str], timeout_s: float) -> None:
        self.name = name
        self._words, self._timeout_s = list(words), timeout_s

    def start(self) -> None:
        """Nothing has to be there before the first message."""

    def send(self, message: Message) -> None:
        """Run the program; returns where it ends with 0.

        Raises:
            Later: it cannot be started.
            Refused: it fails, or takes too long.
        """
        body = json.dumps(message, ensure_ascii=False).encode()
        try:
            process = subprocess.Popen(
                self._words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Later(f"{self._words[0]} cannot be started: {error.strerror or error}") from error
        try:
            _, errors = process.communicate(body, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Refused(f"{self._words[0]} took longer than {self._timeout_s:g} s and was ended") from None
        if process.returncode:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise Refused(f"{self._words[0]} ended with {process.returncode}" + "".join(f": {line}" for line in last))

    def close(self) -> None:
        """Nothing runs between two messages."""
