"""Worker processes for slow rewards: time limits that hold, and a hung or dead worker is replaced.

Workers are new Python processes (`rewards.worker`), not forks: a fork would copy the learner's threads and GPU state.
Each has a socket; this side sends a job once and then groups, one at a time, and waits with a deadline. There is no
thread: work is handed out and taken in whenever somebody submits or waits.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rewards.group import Group
from timepro.system import guard

_LENGTH = struct.Struct("!Q")
_END_S = 5.0  # for a killed process to be gone


@dataclass(frozen=True)
class Job:
    """What a worker needs to build a reward.

    key: tells jobs apart. modules: to be imported first, since they register rewards; tasks: import paths of tasks,
    which the reward may know by their names. start_timeout_s: longest time to start Python, build the reward and load
    what it needs, in seconds; timeout_s: longest time for one group.
    """

    key: str
    spec: dict[str, Any]
    defaults: dict[str, Any]
    modules: tuple[str, ...]
    tasks: tuple[str, ...]
    timeout_s: float
    start_timeout_s: float = 180.0


@dataclass(frozen=True)
class Outcome:
    """What became of a group: values, parts and skipped as in `Group`; error: empty where it was scored.

    users_fault: the reward refused with a ValueError; trace: else where in the reward it happened; not_ready: it
    could not be built or started, so that no group can be scored.
    """

    values: np.ndarray | None = None
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, dict[int, str]] = field(default_factory=dict)
    error: str = ""
    users_fault: bool = False
    trace: str = ""
    not_ready: bool = False


@dataclass(eq=False)
class Ticket:
    """A group handed in; `outcome` is set once it is known."""

    job: Job
    group: Group
    outcome: Outcome | None = None


class RewardPool:
    """Up to `size` workers, started when there is work for them."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self._owner = os.getpid()
        self._workers: list[_Worker] = []
        self._waiting: deque[Ticket] = deque()
        self._lock = threading.RLock()

    def submit(self, job: Job, group: Group) -> Ticket:
        """Queue a group; an idle worker starts on it at once."""
        ticket = Ticket(job, group)
        with self._lock:
            self._waiting.append(ticket)
            self._hand_out()
        return ticket

    def result(self, ticket: Ticket) -> Outcome:
        """Wait for a group. Every step of the wait has a deadline: the one of the job that a worker is on."""
        with self._lock:
            self._hand_out()
            while ticket.outcome is None:
                self._take_in()
                self._hand_out()
        return ticket.outcome

    def cancel(self, ticket: Ticket) -> None:
        """Forget a group that nobody will ask for; one that a worker is on is finished or times out there."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def close(self) -> None:
        """End the workers."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            for worker in self._workers:
                worker.end()
            self._workers.clear()
            self._waiting.clear()

    def _hand_out(self) -> None:
        while self._waiting:
            idle = next((worker for worker in self._workers if worker.ticket is None), None)
            if idle is None and len(self._workers) >= self.size:
                return
            if idle is None:
                idle = _Worker()
                self._workers.append(idle)
            idle.begin(self._waiting.popleft())
            self._drop_broken()

    def _take_in(self) -> None:
        """Wait until a worker answers or its time is over."""
        busy = {worker.socket.fileno(): worker for worker in self._workers if worker.ticket is not None}
        assert busy, "a ticket without an outcome waits or is being worked on"
        first = min(worker.deadline for worker in busy.values())
        with selectors.DefaultSelector() as answers:
            for number in busy:
                answers.register(number, selectors.EVENT_READ)
            ready = answers.select(max(0.0, first - time.monotonic()))
        for key, _ in ready:
            busy[key.fd].take_answer()
        now = time.monotonic()
        for worker in busy.values():
            if worker.ticket is not None and worker.deadline <= now:
                worker.run_out_of_time()
        self._drop_broken()

    def _drop_broken(self) -> None:
        self._workers = [worker for worker in self._workers if not worker.broken]


class _Worker:
    """One process. ticket: what it works on; deadline: when that must be done (`time.monotonic`)."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        environment.setdefault("OMP_NUM_THREADS", "1")
        with theirs:
            # A session of its own: Ctrl-C is the learner's to deal with, and what it starts can be ended with it.
            self.process = subprocess.Popen(
                # -P: what stands in the current folder must not hide our packages
                [sys.executable, "-P", "-m", "rewards.worker", str(theirs.fileno())],
                env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        guard.protect(self.process.pid)  # a reward that hangs would not see that the learner is gone
        self.built: set[str] = set()
        self.ticket: Ticket | None = None
        self.deadline = 0.0
        self.broken = False

    def begin(self, ticket: Ticket) -> None:
        """Start on a group; a job that is new here is built first, with a time limit of its own."""
        self.ticket, job = ticket, ticket.job
        if job.key in self.built:
            self._send(("score", job.key, ticket.group.only(range(len(ticket.group.completions)))), job.timeout_s)
        else:
            path = [entry or os.getcwd() for entry in sys.path]
            self._send(("build", job.key, job.spec, job.defaults, job.modules, job.tasks, path), job.start_timeout_s)

    def take_answer(self) -> None:
        """Read one message: a job is built, or a group is scored."""
        assert self.ticket is not None
        ticket = self.ticket
        try:
            kind, content = receive(self.socket, max(0.01, self.deadline - time.monotonic()))
        except TimeoutError:
            self.run_out_of_time()
            return
        except (EOFError, OSError):
            self._lose()
            return
        if kind == "built":
            self.built.add(ticket.job.key)
            self.begin(ticket)
            return
        self.ticket = None
        ticket.outcome = replace(content, not_ready=ticket.job.key not in self.built)

    def run_out_of_time(self) -> None:
        """Give the group up and the process with it: nothing else stops code that hangs."""
        assert self.ticket is not None
        job = self.ticket.job
        if job.key in self.built:
            hint = "raise timeout_s if that is too short, or let such completions leave their group with on_error: skip"
            self._fail(f"no values within {job.timeout_s:g} s: {hint}")
        else:
            self._fail(f"its worker process was not ready within {job.start_timeout_s:g} s")

    def end(self) -> None:
        """Kill the process and all that it started."""
        self.broken = True
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # then the kernel has it
            self.process.wait(_END_S)
            guard.release(self.process.pid)

    def _send(self, message: Any, limit_s: float) -> None:
        self.deadline = time.monotonic() + limit_s
        try:
            send(self.socket, message, limit_s)
        except TimeoutError:
            self.run_out_of_time()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        try:
            code = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            code = None
        self._fail(f"its worker process ended with exit code {code}")

    def _fail(self, error: str) -> None:
        assert self.ticket is not None
        self.ticket.outcome = Outcome(error=error, not_ready=self.ticket.job.key not in self.built)
        self.ticket = None
        self.end()


def send(connection: socket.socket, message: Any, timeout_s: float | None) -> None:
    """Send a message; raises TimeoutError. Both ends are this program, so that pickle is safe."""
    data = pickle.dumps(message)
    connection.settimeout(timeout_s)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket, timeout_s: float | None) -> Any:
    """Receive a message; raises TimeoutError, or EOFError where the other end is closed."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    return pickle.loads(_exactly(connection, length, deadline))


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
        else:
            connection.settimeout(None)
        received = connection.recv(min(size - len(data), 1 << 20))
        if not received:
            raise EOFError("the other end is closed")
        data += received
    return bytes(data)


_shared: RewardPool | None = None


def shared_pool(size: int = 1) -> RewardPool:
    """The pool of this process, with at least `size` workers; ended with Python."""
    global _shared
    if _shared is None or _shared._owner != os.getpid():
        _shared = RewardPool()
        atexit.register(_shared.close)
    _shared.size = max(_shared.size, size)
    return _shared
