"""What a node writes of itself: real processes and their memory, other nodes' memory, how the launcher ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from timepro.status.files import Progress, progress_file, read_nodes, write_node, write_progress
from timepro.system import cards
from trainer.launcher.node_watch import NodeWatch
from trainer.launcher.signals import Interrupted
from trainer.messages import JobSpec

HOLDS = "import time; block = bytearray(b'x' * (200 << 20)); print('there', flush=True); time.sleep(60)"
STARTS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS!r}])"


def job(work: Path, kind: str = "sft") -> JobSpec:
    return JobSpec(kind, "", "", "", "", "", str(work), "SFT", "")


def test_processes_are_listed_with_all_that_they_have_started(tmp_path: Path) -> None:
    """A rank that has ended, one whose child holds 200 MiB, a worker that is stopped."""
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    ended.wait()
    holding = subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE)
    stopped = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert holding.stdout is not None and holding.stdout.readline() == b"there\n"
        stopped.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        watch = NodeWatch(interval_s=1000.0)  # looks when it is told to
        watch.report_to(run)
        worker = SimpleNamespace(index="0", process=stopped, served=True, restarts=2, url="http://x")
        watch.workers = SimpleNamespace(workers=[worker], lost=["worker 1 was lost\nits log"])
        watch.at("sft")
        watch.ranks(4, [ended, holding])
        watch.job(job(tmp_path / "runs" / "cache" / "sft-1" / "work"))
        watch.look()
        (report,) = read_nodes(run)
        rank_4, rank_5, worker_0, lost = report.processes
        assert (rank_4.name, rank_4.state, rank_4.memory_gib) == ("4", "ended (3)", 0.0)
        assert (rank_5.name, rank_5.state) == ("5", "running") and 0.19 < rank_5.memory_gib < 0.35
        assert (worker_0.state, worker_0.restarts, worker_0.note) == ("stopped", 2, "http://x")
        assert (lost.state, lost.note) == ("given up", "worker 1 was lost")
        assert report.memory_gib > rank_5.memory_gib and report.peak_gib == pytest.approx(report.memory_gib)
        assert report.machine_gib > report.machine_used_gib > 0
        assert report.stage is not None and report.stage.work == "../cache/sft-1/work"
        watch.at("grpo")
        watch.look()
        assert [p.kind for p in read_nodes(run)[0].processes] == ["worker", "worker"], "the stage before has ended"
    finally:
        for process in (holding, stopped):
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "done"),
        (Interrupted(signal.SIGINT), "stopped by SIGINT"),
        (RuntimeError("rank 1 died"), "failed: rank 1"),
    ],
)
def test_the_last_word_says_how_it_ended(tmp_path: Path, error: Exception | None, said: str) -> None:
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / "node-3.json").write_text("of an earlier start with more nodes")
    try:
        with NodeWatch(interval_s=0.01) as watch:
            watch.report_to(tmp_path, anew=True)
            deadline = time.monotonic() + 10
            while not read_nodes(tmp_path):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert read_nodes(tmp_path)[0].ended == ""
            if error is not None:
                raise error
    except (Interrupted, RuntimeError):
        pass
    (report,) = read_nodes(tmp_path)
    assert report.ended.startswith(said)


@pytest.mark.parametrize("error", [psutil.AccessDenied(1), ValueError("a driver's odd answer"), OSError("disk full")])
def test_a_fault_of_the_watching_is_said_once_and_ends_nothing(tmp_path: Path, monkeypatch, capfd, error) -> None:
    looks: list[float] = []

    def virtual_memory():
        looks.append(time.monotonic())
        if len(looks) <= 3:
            raise error
        return there()

    there = psutil.virtual_memory
    monkeypatch.setattr(psutil, "virtual_memory", virtual_memory)
    with NodeWatch(interval_s=0.01) as watch:
        watch.report_to(tmp_path)
        deadline = time.monotonic() + 10
        while not read_nodes(tmp_path):
            assert time.monotonic() < deadline, "the thread has ended"
            time.sleep(0.01)
    said = capfd.readouterr().err
    assert said.count("timepro status will not know of this node") == 1 and str(error) in said


def test_a_stages_peak_counts_every_node(tmp_path: Path) -> None:
    watch = NodeWatch(nodes=2, interval_s=1000.0)
    watch.report_to(tmp_path)
    watch.look()
    own = watch.peak_bytes / 2**30
    other = replace(read_nodes(tmp_path)[0], node=1, memory_gib=own + 70.0, peak_gib=own + 90.0)
    write_node(tmp_path, other)
    watch.look()
    assert watch.take_peak_gib() == pytest.approx(own + 70.0)
    write_node(tmp_path, replace(other, memory_gib=0.0))
    watch.look()
    assert watch.take_peak_gib() < own + 1.0, "the next stage has its own"
    assert watch.node_peaks_gib() == {0: watch.peak_bytes / 2**30, 1: own + 90.0}


def test_a_jobs_progress_of_an_earlier_start_is_forgotten(tmp_path: Path) -> None:
    write_progress(tmp_path, Progress("sft", 7, 9, "train", 0.0, 0.0))
    NodeWatch().job(job(tmp_path))
    assert not progress_file(tmp_path, "sft").exists()


class Nvml:
    """NVML of a machine with two cards, of which one does not answer."""

    class NVMLError(Exception):
        pass

    def __getattr__(self, name: str):
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": lambda name: {"GPU-b": 1}[name],
            "nvmlDeviceGetIndex": lambda handle: handle,
            "nvmlDeviceGetName": lambda handle: b"H100",
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=75, memory=10),
        }
        return answers[name]

    def _memory(self, handle: int) -> SimpleNamespace:
        if handle == 1:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(used=30 << 30, total=80 << 30)


@pytest.mark.parametrize(("visible", "found"), [(None, [0]), ("0", [0]), ("GPU-b", [])])
def test_cards_are_told_by_nvml(monkeypatch, visible: str | None, found: list[int]) -> None:
    monkeypatch.setattr(cards, "on_gpu", lambda: True)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = cards.Cards()
    reports = seen.look()
    assert [report.index for report in reports] == found
    assert seen.problem == ("" if visible == "0" else "NVML: GPU is lost")
    if found:
        assert reports[0] == cards.CardReport(0, "H100", 0.75, 30.0, 80.0)


def test_without_the_library_the_reason_is_said(monkeypatch) -> None:
    monkeypatch.setattr(cards, "on_gpu", lambda: True)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it then fails
    seen = cards.Cards()
    assert seen.look() == [] and seen.problem == "nvidia-ml-py is not installed"
