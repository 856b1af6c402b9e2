"""What a run says of its costs: how long vLLM takes to start, what each stage has taken, the disk that it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollout.alive import FILE_VARIABLE
from rollout.phases import read_phase, say_phase
from timepro.tables import print_table
from trainer.launcher.costs import cost_table, disk_gib
from trainer.launcher.node_watch import NodeWatch
from trainer.launcher.stages import StageLog, cached_stage
from trainer.launcher.vllm_start import STARTS_FILE, wait_for_vllm


class Workers:
    """Serve after some questions, and are at something until then."""

    def __init__(self, questions: int = 3) -> None:
        self.questions = questions

    def wait(self, meanwhile) -> None:
        for _ in range(self.questions):
            meanwhile()
            time.sleep(0.01)

    def phase(self) -> str:
        return "loading the model"


def test_a_start_of_vllm_says_what_it_does_and_how_long_it_took_the_last_time(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("timepro.progress._LINE_EVERY_S", 0.0)
    wait_for_vllm(Workers(), tmp_path, "tiny, 1 worker(s)")
    said = capsys.readouterr().err
    assert "starting vLLM: " in said and "loading the model" in said and "last time" not in said and "s/s" not in said
    assert 0.03 < json.loads((tmp_path / STARTS_FILE).read_text())["tiny, 1 worker(s)"] < 10
    (tmp_path / STARTS_FILE).write_text(json.dumps({"tiny, 1 worker(s)": 42.3, "7b, 1 worker(s)": 200.0}))
    wait_for_vllm(Workers(), tmp_path, "tiny, 1 worker(s)")
    assert "starting vLLM, 42 s last time: 0:00 elapsed, loading the model" in capsys.readouterr().err
    known = json.loads((tmp_path / STARTS_FILE).read_text())
    assert known["7b, 1 worker(s)"] == 200.0 and known["tiny, 1 worker(s)"] < 10


def test_a_worker_says_its_phase_in_its_log_and_another_process_says_nothing(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.log"
    assert read_phase(log) == ""
    code = "from rollout.phases import say_phase; say_phase('importing vLLM'); print('WARNING of vLLM'); "
    code += "say_phase('loading the model'); print('more ' * 9)"
    root = str(Path(__file__).resolve().parents[3])
    for launched, expected in (({}, ""), ({FILE_VARIABLE: str(tmp_path / "alive")}, "loading the model")):
        with log.open("ab") as sink:
            environment = os.environ | {"PYTHONPATH": root} | launched
            subprocess.run([sys.executable, "-c", code], env=environment, stdout=sink, stderr=sink, check=True)
        assert read_phase(log) == expected


def test_no_launcher_no_phase(capsys, monkeypatch) -> None:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    say_phase("importing vLLM")
    assert capsys.readouterr().err == ""


def test_each_stage_has_its_own_peak_of_memory(tmp_path: Path, capsys) -> None:
    with NodeWatch(interval_s=1000.0) as watch:  # looks when it is told to
        log = StageLog(watch.take_peak_gib)
        blocks = []

        def work(size: int):
            def made(folder: Path) -> dict:
                blocks.append(bytearray(os.urandom(1 << 20) * size))
                watch.look()
                blocks.clear()
                return {}

            return made

        for name, size in (("large", 300), ("small", 1)):
            cached_stage(name, tmp_path, "key", work(size), log, "")
    assert log.memory_gib["large"] > log.memory_gib["small"] + 0.2
    assert watch.peak_bytes / 2**30 >= log.memory_gib["large"]
    said = capsys.readouterr().err
    assert "large  done in 0:" in said and f"at most {log.memory_gib['large']:.1f} GiB of memory" in said
    other = StageLog()
    cached_stage("large", tmp_path, "key", work(1), other, "")
    assert other.seconds == {"large": 0.0} and other.memory_gib == {}


def test_stages_are_summed_up_with_time_share_and_memory(capsys) -> None:
    summary = {
        "stages": {"data-sft": 20.0, "data-rl": 10.0, "model": 0.0, "sft": 90.0, "grpo": 180.0},
        "stage_memory_gib": {"data-sft": 0.5, "data-rl": 0.75, "sft": 2.04, "grpo": 6.4},
        "peak_memory_gib": 6.4,
    }
    print_table(cost_table(summary))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (
        ["0:30", "10%", "0.8", "data"],
        ["kept", "-", "-", "model"],
        ["1:30", "30%", "2.0", "sft"],
        ["3:00", "60%", "6.4", "grpo"],
        ["5:00", "100%", "6.4", "all", "stages"],
    ):
        assert row in rows, rows


def test_disk_is_counted_once_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "other").write_bytes(b"x" * (8 << 20))
    (tmp_path / "run" / "deep" / "a").write_bytes(os.urandom(4 << 20))
    os.link(tmp_path / "run" / "deep" / "a", tmp_path / "run" / "b")
    (tmp_path / "run" / "c").symlink_to(tmp_path / "other")
    assert disk_gib(tmp_path / "run") == pytest.approx(4 / 1024, rel=0.01)
