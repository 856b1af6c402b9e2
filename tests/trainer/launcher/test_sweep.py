"""Running trials with a stand-in for `timepro train`, and comparing what real runs leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from timepro.sweeps import ARGUMENTS, Trial, expand, read_sweep
from trainer.launcher.stages import StageLog, cached_stage
from trainer.launcher.sweep import run_sweep
from trainer.launcher.trials import trial_folder

STAND_IN = """
import json, pathlib, sys, time
given = dict(word.partition("=")[::2] for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(given["runs"]) / "s" / f"seed={given['seed']}"
folder.mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as starts:
    starts.write(("resumed" if "--resume" in sys.argv else "new") + f" {time.time()}\\n")
if given["seed"] == "1":
    print("timepro: a reason", file=sys.stderr)
    sys.exit(2)
time.sleep(float(given.get("seconds", 0)))
(folder / "ended").write_text(str(time.time()))
(folder / "summary.json").write_text("{}")
"""


@pytest.fixture
def sweep(tmp_path: Path):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    command = ["${interpreter}", str(tmp_path / "stand_in.py"), "--sweep", "s", ARGUMENTS]
    raw = {"name": "s", "method": "grid", "command": command, "parameters": {"seed": {"values": [0, 1, 2]}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(raw))
    return read_sweep(tmp_path / "s.yaml")


def starts(runs: Path, seed: int) -> list[str]:
    return [line.split()[0] for line in (runs / "s" / f"seed={seed}" / "starts").read_text().splitlines()]


def test_a_failing_trial_is_named_and_finished_ones_are_not_repeated_with_a_stand_in(sweep, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for _ in range(2):
        failed = run_sweep(sweep, expand(sweep), runs, 1, [], poll_s=0.02)
        assert failed == {"seed=1": "exit code 2: a reason"}
    assert [len(starts(runs, seed)) for seed in (0, 1, 2)] == [1, 2, 1]


def test_a_trial_with_a_checkpoint_is_resumed_with_a_stand_in(sweep, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    state = trial_folder(runs, sweep, Trial((("seed", 0),)), []) / "checkpoints" / "step-000002" / "state.json"
    state.parent.mkdir(parents=True)
    state.touch()
    run_sweep(sweep, expand(sweep), runs, 3, [], poll_s=0.02)
    assert [starts(runs, seed) for seed in (0, 1, 2)] == [["resumed"], ["new"], ["new"]]


def test_slots_run_side_by_side_with_a_stand_in(sweep, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    trials = [Trial((("seed", seed), ("seconds", 1.5))) for seed in (0, 2)]
    # `seconds` is in the trial's name, which the stand-in does not know: it is judged by what it wrote.
    run_sweep(sweep, trials, runs, 2, [], poll_s=0.02)
    began = [float((runs / "s" / f"seed={s}" / "starts").read_text().split()[1]) for s in (0, 2)]
    ended = [float((runs / "s" / f"seed={s}" / "ended").read_text()) for s in (0, 2)]
    assert max(began) < min(ended)


def test_an_interrupted_sweep_leaves_no_trial_behind_with_a_stand_in(sweep, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from timepro.sweeps import Trial, read_sweep\n"
        "from trainer.launcher.sweep import run_sweep\n"
        "run_sweep(read_sweep(Path(sys.argv[1])), [Trial((('seed', 0), ('seconds', 60)))], Path(sys.argv[2]), 1, [])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(sweep.path), str(tmp_path / "runs")], stderr=-3)
    mark = tmp_path / "runs" / "s" / "seed=0" / "starts"
    deadline = time.monotonic() + 30
    while not mark.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "stand_in.py")], capture_output=True, text=True).stdout
    assert left == ""
    assert not (tmp_path / "runs" / "s" / "seed=0" / "summary.json").exists()


# ---------------------------------------------------------------- one result for several runs


def test_of_two_runs_that_need_a_result_one_makes_it(tmp_path: Path) -> None:
    made, going, found = [], threading.Event(), []

    def work(folder: Path) -> dict[str, int]:
        made.append(os.getpid())
        going.set()
        time.sleep(0.5)
        return {"n": 1}

    def run() -> None:
        found.append(cached_stage("data", tmp_path, "key", work, StageLog(), "something")[1])

    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert going.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1 and found == [{"n": 1}, {"n": 1}]


def test_a_result_that_failed_is_made_by_the_next(tmp_path: Path) -> None:
    def broken(folder: Path) -> dict[str, int]:
        raise ValueError("no")

    with pytest.raises(ValueError):
        cached_stage("data", tmp_path, "key", broken, StageLog(), "something")
    assert cached_stage("data", tmp_path, "key", lambda folder: {"n": 2}, StageLog(), "something")[1] == {"n": 2}
