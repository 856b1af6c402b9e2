"""Nothing outlives its launcher: a small process that kills what a launcher started once the launcher is gone.

The kernel tells direct children of their parent's death by a signal (`end_with_parent`), which a process may handle
slowly or not at all while it hangs in a call, and of which grandchildren hear nothing. So the first `protect` starts a
guard in a session of its own. It learns of the launcher's death, however it came, asks all process groups under its
protection to end, and kills those that are left after a grace period.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 8.0  # to end well; a rank's own guard begins to count when the rank is gone
_POLL_S = 0.5
_KILLING_S = 5.0  # a killed process may still have to leave a call to the kernel

_lock = threading.Lock()
_guard: subprocess.Popen[str] | None = None
_groups: set[int] = set()


def protect(group: int) -> None:
    """Have a process group killed once this process is gone."""
    with _lock:
        _groups.add(group)
        _tell(f"+{group}")


def release(group: int) -> None:
    """A process group has ended; its number may become another's."""
    with _lock:
        if group in _groups:
            _groups.discard(group)
            _tell(f"-{group}")


def _tell(line: str) -> None:
    global _guard
    with contextlib.suppress(BrokenPipeError):
        if _guard is not None and _guard.stdin is not None and _guard.poll() is None:
            _guard.stdin.write(line + "\n")
            _guard.stdin.flush()
            return
    # By its path: it shall start in an instant, without what the package imports.
    command = [sys.executable, "-S", "-E", __file__, str(os.getpid()), str(GRACE_S)]
    _guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert _guard.stdin is not None, "it was asked for as a pipe"
    _guard.stdin.write("".join(f"+{number}\n" for number in sorted(_groups)))
    _guard.stdin.flush()


def _watch(launcher: int, grace_s: float) -> None:
    """The guard's life: take in groups until the launcher is gone, then end them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    unread, there = b"", True
    # A process that the launcher has forked may hold the other end of the pipe, so its end alone is not waited for.
    while there:
        there = os.getppid() == launcher
        while select.select([0], [], [], _POLL_S if there else 0.0)[0]:
            if not (some := os.read(0, 65536)):
                there = False
                break
            *lines, unread = (unread + some).split(b"\n")
            for line in lines:
                (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    _signal(groups, signal.SIGTERM)
    _until_gone(groups, grace_s, 0)
    _until_gone(groups, _KILLING_S, signal.SIGKILL)


def _until_gone(groups: set[int], limit_s: float, number: int) -> None:
    """Signal groups again and again (0: only look) until none of them is left or the time is over."""
    deadline = time.monotonic() + limit_s
    while groups and time.monotonic() < deadline:
        _signal(groups, number)
        time.sleep(0.1)


def _signal(groups: set[int], number: int) -> None:
    """Signal groups, and forget those that are gone."""
    for group in list(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            groups.discard(group)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]))
