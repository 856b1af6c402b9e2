"""Signs of life that a worker's processes write: until there is no progress, by several, after a full disk."""

from __future__ import annotations

import subprocess
import sys
import time

from rollout import alive
from rollout.alive import FILE_VARIABLE, last_sign, signs_of_life


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_signs_of_life_end_without_progress(tmp_path, monkeypatch):
    path = tmp_path / "worker.alive"
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    with signs_of_life(0.6) as progress:
        for _ in range(5):
            time.sleep(0.3)
            progress()
        assert time.monotonic() - last_sign(path) < 0.6
        time.sleep(1.5)
        assert time.monotonic() - last_sign(path) > 0.7
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_signs_of_life_go_on_after_a_disk_that_could_not_be_written(tmp_path, monkeypatch):
    path = tmp_path / "later" / "worker.alive"
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    with signs_of_life(60.0):
        time.sleep(0.3)
        path.parent.mkdir()
        wait_for(path.exists)
        assert time.monotonic() - last_sign(path) < 5.0


def test_several_processes_give_signs_in_one_file(tmp_path, monkeypatch):
    """The processes of a tensor-parallel worker; a reader never finds it empty or half-written."""
    path = tmp_path / "worker.alive"
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    monkeypatch.setattr(alive, "_EVERY_S", 0.0005)
    program = "import time; from rollout import alive; alive._EVERY_S = 0.0005\n"
    program += "with alive.signs_of_life(60): time.sleep(3)"
    other = subprocess.Popen([sys.executable, "-c", program])
    with signs_of_life(60.0):
        wait_for(path.exists)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert time.monotonic() - last_sign(path) < 5.0
    assert other.wait(20) == 0
