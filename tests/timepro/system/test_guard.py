"""Nothing outlives its launcher: it is killed in the middle of things, and what it started does not want to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from timepro.system.processes import group_alive

LIMIT_S = 20.0  # from a launcher's death to that of all it started

# Starts a process in a session of its own, as workers and ranks are, and then waits to be killed.
LAUNCHER = """
import os, subprocess, sys, time
from pathlib import Path
from timepro.system import guard
guard.GRACE_S = float(sys.argv[3])
child = subprocess.Popen([sys.executable, "-S", "-c", sys.argv[1], sys.argv[2]], start_new_session=True)
guard.protect(child.pid)
{more}
Path(sys.argv[2], "launcher").write_text(f"{{child.pid}} {{guard._guard.pid}}")
{then}
"""

# An API server that waits, after SIGTERM, for an engine that hangs in a call: both ignore the signal here.
STUCK = """
import signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
engine = "import signal, sys, time; from pathlib import Path; signal.signal(signal.SIGTERM, signal.SIG_IGN);" \\
    "Path(sys.argv[1], 'engine').touch(); time.sleep(600)"
subprocess.Popen([sys.executable, "-S", "-c", engine, sys.argv[1]])
time.sleep(600)
"""
# The server ends at once and leaves the engine behind.
LEAVES = STUCK.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n", "", 1)
# Ends well, if it is given the time.
SAVES = """
import signal, sys, time
from pathlib import Path
def save(number, frame):
    time.sleep(1.0)
    Path(sys.argv[1], "saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
Path(sys.argv[1], "engine").touch()
time.sleep(600)
"""


def until(condition, limit_s=20.0, what="waited in vain"):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, what
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture
def launch(tmp_path):
    """Start a launcher; its process, and the numbers of the group it has started and of its guard."""
    groups = []

    def _launch(program, more="", then="time.sleep(600)", grace_s=2.0):
        source = LAUNCHER.format(more=more, then=then)
        process = subprocess.Popen([sys.executable, "-c", source, program, str(tmp_path), str(grace_s)])
        until((tmp_path / "launcher").exists)
        until((tmp_path / "engine").exists)
        until(lambda: (tmp_path / "launcher").read_text().count(" ") == 1)
        group, guard = map(int, (tmp_path / "launcher").read_text().split())
        groups.append(group)
        return process, group, guard

    yield _launch
    for group in groups:
        if group_alive(group):
            os.killpg(group, signal.SIGKILL)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("program", [STUCK, LEAVES], ids=["server waits", "server leaves its engine"])
def test_what_does_not_want_to_end_is_killed_with_its_launcher(launch, program):
    launcher, group, guard = launch(program)
    launcher.kill()
    launcher.wait()
    assert until(lambda: not group_alive(group), LIMIT_S) >= 1.0  # it had its time to end well
    until(lambda: gone(guard), 5.0, "the guard stays behind itself")


def test_the_default_grace_period_keeps_the_limit(launch):
    from timepro.system.guard import GRACE_S

    launcher, group, _ = launch(STUCK, grace_s=GRACE_S)
    launcher.kill()
    launcher.wait()
    until(lambda: not group_alive(group), LIMIT_S)


def test_a_stopped_process_is_killed_with_its_launcher(launch):
    launcher, group, _ = launch(STUCK)
    os.killpg(group, signal.SIGSTOP)
    launcher.kill()
    launcher.wait()
    until(lambda: not group_alive(group), LIMIT_S)


def test_a_process_that_saves_has_the_time_for_it(launch, tmp_path):
    launcher, group, _ = launch(SAVES, grace_s=10.0)
    launcher.kill()
    launcher.wait()
    until(lambda: not group_alive(group), LIMIT_S)
    assert (tmp_path / "saved").exists()


def test_a_process_that_the_launcher_has_forked_does_not_hide_its_death(launch):
    forked = "if os.fork() == 0:\n    time.sleep(30)\n    os._exit(0)"
    launcher, group, _ = launch(STUCK, more=forked)
    launcher.kill()
    launcher.wait()
    until(lambda: not group_alive(group), LIMIT_S)


def test_a_released_group_is_left_alone_and_the_guard_goes_with_the_launcher(launch):
    launcher, group, guard = launch(STUCK, then="guard.release(child.pid)")
    launcher.wait(20)
    until(lambda: gone(guard), 5.0)
    assert group_alive(group)


def test_a_guard_that_was_killed_is_replaced(launch, tmp_path):
    more = """
os.kill(guard._guard.pid, 9)
guard._guard.wait()
guard.protect(child.pid)
"""
    launcher, group, _ = launch(STUCK, more=more)
    launcher.kill()
    launcher.wait()
    until(lambda: not group_alive(group), LIMIT_S)


def test_the_processes_that_write_soundscapes_end_with_their_parent(tmp_path):
    program = """
import sys
from pathlib import Path
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import write_split
def said(n):
    print(n, flush=True)
if __name__ == "__main__":
    write_split(Path(sys.argv[1]), "sft", 5000, 0, SoundscapeConfig(), workers=2, progress=said)
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "out")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert parent.stdout.readline()
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    until(lambda: not any(running(child) for child in children), LIMIT_S)


def test_a_process_whose_parent_has_died_before_it_could_ask_the_kernel_ends(tmp_path):
    program = """
import multiprocessing, os, signal, time
from timepro.system.processes import end_with_parent
def late():
    print(os.getpid(), flush=True)
    multiprocessing.parent_process().join()
    end_with_parent(signal.SIGKILL)
    time.sleep(60)
if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=late).start()
    time.sleep(60)
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        parent.kill()
        parent.wait()
        until(lambda: not running(child), LIMIT_S)
    finally:
        if running(child):
            child.kill()


def running(process: psutil.Process) -> bool:
    """Whether it runs; it may go between two questions about it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_this_process_protects_what_it_starts():
    from timepro.system import guard

    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True)
    guard.protect(child.pid)
    try:
        assert child.pid in guard._groups
        words = Path(f"/proc/{guard._guard.pid}/cmdline")
        until(words.read_text)  # a program that has just begun has none for a moment
        assert words.read_text().split("\0")[-3] == str(os.getpid())
    finally:
        child.kill()
        child.wait()
        guard.release(child.pid)
    assert child.pid not in guard._groups
