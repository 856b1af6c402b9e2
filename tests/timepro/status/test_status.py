"""What `timepro status` says of runs that go on, have finished, were stopped, have died or hang."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timepro.cli import main
from timepro.run_lock import run_lock
from timepro.status.files import (
    NodeReport,
    ProcessReport,
    Progress,
    StageReport,
    read_nodes,
    write_node,
    write_progress,
)
from timepro.status.read import newest_run, status_of
from timepro.status.show import print_status, status_lines
from timepro.system.cards import CardReport

NOW = 1_764_130_000.0
FORECAST = {"data-sft": 0.0, "sft": 240.0, "grpo": 600.0, "control": 100.0, "evaluate-control": 40.0}
STAGE = StageReport("grpo", NOW - 125.0, "grpo", "GRPO", ".", FORECAST)
HEAD = NodeReport(
    0, 2, "first", os.getpid(), NOW - 1.0, NOW - 300.0, memory_gib=5.5, peak_gib=6.0, machine_gib=24.0,
    machine_used_gib=9.0, cpu=0.83, stage=STAGE,
    processes=(
        ProcessReport("rank", "0", "running", 11, 0.8),
        ProcessReport("worker", "0", "starting", 12, 2.5, 1, "http://127.0.0.1:8000"),
    ),
    cards=(CardReport(0, "H100", 0.25, 60.0, 80.0),), busy_minute=(0.75,),
)  # fmt: skip
OTHER = replace(HEAD, node=1, host="second", written=NOW - 43.0, stage=None, cards=(), busy_minute=(), processes=())


def make(run: Path, *reports: NodeReport, steps: int = 6, phase: str = "generate") -> Path:
    """A run at step `steps` of 50, whose steps take 2.5 s."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: one\ngrpo: {max_steps: 50}\n")
    (run / "run.json").write_text(json.dumps({"started": "2026-11-26 04:20:11+0000"}))
    for report in reports:
        write_node(run, report)
    if steps:
        rows = [
            {
                "step": step, "elapsed_s": 2.5 * step, "step_time": 2.0, "time/generate": 1.2, "time/train": 0.5,
                "perf/tokens_per_second": 1234.0, "perf/answers_per_second": 56.0, "sampling/staleness": 1.0,
                "reward": 0.4,
            }
            for step in range(1, steps + 1)
        ]  # fmt: skip
        rows.append({"step": steps, "elapsed_s": 2.5 * steps, "eval/validation/eb_f1_micro": 0.3})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (run / "metrics.grpo.jsonl").write_text(text + '{"step": 7, "elap')  # a line in the making
        write_progress(run, Progress("grpo", steps, 50, phase, NOW - 3.0, NOW - 0.5))
    return run


def text_of(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    print_status(status_of(run, NOW))
    return capsys.readouterr().out


def test_a_running_run(tmp_path: Path, capsys) -> None:
    run = make(tmp_path / "one", HEAD, OTHER)
    status = status_of(run, NOW)
    assert (status.state, status.stage, status.stage_s) == ("running", "grpo", 125.0)
    assert (status.step, status.of, status.phase, status.phase_s) == (6, 50, "generate", 3.0)
    assert status.step_s == 2.5  # with what lies between the steps
    assert status.phases == {"generate": 1.2, "train": 0.5}
    assert status.numbers == {
        "tokens_per_second": 1234.0, "answers_per_second": 56.0, "staleness": 1.0, "reward": 0.4, "step_time": 2.0,
    }  # fmt: skip
    assert status.later == {"control": 100.0, "evaluate-control": 40.0}
    assert status.eta_s == pytest.approx(44 * 2.5 + 140.0)
    assert status.age_s == 0.5
    assert [node.silent for node in status.nodes] == [False, True]
    text = " ".join(text_of(run, capsys).split())  # however wide the columns are
    for part in (
        "one: running", "stage grpo for 2:05, GRPO step 6 of 50, generate for 3 s, started 2026-11-26 04:20",
        "2.50 s a step, 1,234 tokens a second, 56 answers a second, staleness 1.00 updates, reward 0.400",
        "ETA 4:10, of which later stages: control 1:40, evaluate-control 0:40", "last sign of life 0 s ago",
        "1.200 60% generate 0.500 25% train 0.300 15% between phases",
        "0 1/1 0/1 5.5 6.0 9/24 83% first 1 s ago 1 0/0 0/0 5.5 6.0 9/24 83% second silent for 43 s",
        "0 rank 0 11 0.80 - running", "0 worker 0 12 2.50 1 starting http://127.0.0.1:8000",
        "0 0 25% 75% 60.0/80 H100",
    ):  # fmt: skip
        assert part in text, f"{part!r} is not in\n{text}"


def test_the_job_of_a_stage_that_runs_share_is_found_where_it_works(tmp_path: Path) -> None:
    work = tmp_path / "cache" / "sft-abc" / "work"
    sft = StageReport("sft", NOW - 20.0, "sft", "SFT", "../cache/sft-abc/work", FORECAST)
    run = make(tmp_path / "one", replace(HEAD, stage=sft), steps=0)
    work.mkdir(parents=True)
    rows = [{"step": 10 * n, "elapsed_s": 5.0 * n, "loss": 1.0 / n, "step_time": 0.5} for n in (1, 2, 3)]
    (work / "metrics.sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_progress(work, Progress("sft", 34, 100, "train", NOW - 0.2, NOW - 0.1))
    status = status_of(run, NOW)
    assert (status.job, status.step, status.of, status.step_s) == ("SFT", 34, 100, 0.5)
    assert status.eta_s == pytest.approx(66 * 0.5 + 740.0)


def test_a_stage_without_steps_goes_by_the_forecast_or_is_not_known(tmp_path: Path) -> None:
    stage = StageReport("control", NOW - 30.0, forecast=FORECAST)
    run = make(tmp_path / "one", replace(HEAD, stage=stage))
    status = status_of(run, NOW)
    assert (status.eta_s, status.phase) == (70.0 + 40.0, "")  # GRPO's last phase is over
    write_node(run, replace(HEAD, stage=replace(stage, forecast=FORECAST | {"evaluate-control": None})))
    status = status_of(run, NOW)
    assert status.eta_s is None
    assert "  ETA not known (no earlier run tells how long evaluate-control takes)" in status_lines(status)


@pytest.mark.parametrize(
    ("ended", "state", "why"),
    [
        ("done", "finished", ""),
        ("stopped by SIGTERM", "stopped", "stopped by SIGTERM"),
        ("failed: learner rank 1 ended", "stopped", "failed: learner rank 1 ended"),
        ("", "stopped", "it ended without a word: killed, or its machine was lost"),
    ],
)
def test_a_run_that_has_ended_says_how_and_when(tmp_path: Path, capsys, ended: str, state: str, why: str) -> None:
    run = make(tmp_path / "one", replace(HEAD, written=NOW - 7200.0, ended=ended))
    write_progress(run, Progress("grpo", 6, 50, "train", NOW - 7300.0, NOW - 7260.0))
    status = status_of(run, NOW)
    assert (status.state, status.why) == (state, why)
    assert (status.age_s, status.eta_s, status.step) == (7200.0, None, 6)
    text = text_of(run, capsys)
    assert "last sign of life 2:00:00 ago" in text and "ETA" not in text and "silent" not in text


def test_a_launcher_that_is_stopped_is_called_silent(tmp_path: Path) -> None:
    run = make(tmp_path / "one", replace(HEAD, written=NOW - 60.0))
    assert status_of(run, NOW).state == "stopped"
    with run_lock(run):  # its process is there
        status = status_of(run, NOW)
    assert status.state == "silent"
    assert status.why == f"its launcher (process {os.getpid()} on first) has given no sign for 60 s: stopped, or hung"


def test_a_run_of_an_older_version_shows_what_it_has(tmp_path: Path) -> None:
    run = make(tmp_path / "one")
    (run / "progress.grpo.json").unlink()
    os.utime(run / "metrics.grpo.jsonl", (NOW - 90.0, NOW - 90.0))
    status = status_of(run, NOW)
    assert (status.state, status.step, status.of, status.age_s) == ("stopped", 6, 50, 90.0)
    (run / "summary.json").write_text('{"eval": {}}')
    assert status_of(run, NOW).state == "finished"


def test_a_node_before_its_stage_and_reports_come_back_as_they_were(tmp_path: Path) -> None:
    run = make(tmp_path / "one", HEAD, OTHER)
    assert read_nodes(run) == [HEAD, OTHER]
    (run / "status" / "node-0.json").write_text('{"node": 0, "of_the_future": 1}')
    with pytest.raises(ValueError, match=r"node-0\.json is not of this version"):
        status_of(run, NOW)


def test_the_newest_run_is_the_one_that_was_heard_of_last(tmp_path: Path) -> None:
    for name, age in (("a", 300.0), ("sweep/b", 100.0), ("c", 200.0)):
        run = make(tmp_path / "runs" / name, HEAD)
        for path in (run / "status" / "node-0.json", run / "config.yaml"):
            os.utime(path, (NOW - age, NOW - age))
    make(tmp_path / "runs" / "cache" / "sft-x")  # what runs share is none
    assert newest_run(tmp_path / "runs") == tmp_path / "runs" / "sweep" / "b"
    with pytest.raises(ValueError, match="there is no run below"):
        newest_run(tmp_path / "runs" / "a" / "status")


def json_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_the_command(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make(tmp_path / "runs" / "one", replace(HEAD, ended="done"))
    assert main(["status", "--format", "json"]) == 0
    found = json_of(capsys)
    assert (found["run"], found["state"], found["step"]) == ("runs/one", "finished", 6)
    assert found["nodes"][0]["report"]["cards"][0]["name"] == "H100"
    assert main(["status", str(run), "--json"]) == 0
    assert json_of(capsys)["nodes"][0]["report"] == found["nodes"][0]["report"]
    assert main(["status", str(run), "--watch", "0.01"]) == 0  # it has ended: shown once
    assert capsys.readouterr().out.count("runs/one: finished") == 1
    live = make(tmp_path / "runs" / "live", replace(HEAD, written=time.time()))

    def end(seconds: float) -> None:
        write_node(live, replace(HEAD, written=time.time(), ended="stopped by SIGINT"))

    monkeypatch.setattr(time, "sleep", end)
    assert main(["status", str(live), "--watch", "--json"]) == 0
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == ["running", "stopped"]
    for words, said in (
        (["status", "runs/two"], "runs/two is not a folder"),
        (["status", str(tmp_path)], "holds no config.yaml"),
        (["status", "--watch", "0"], "above 0"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
