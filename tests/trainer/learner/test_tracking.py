"""What a run records: lines of a metrics file, and W&B offline beside it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from timepro.evaluation import score
from timepro.events import Event
from timepro.tasks import Sample
from trainer.launcher.runfolder import link_records
from trainer.learner.scoring import ScoredGroup
from trainer.learner.tracking import RunTracker
from trainer.learner.wandb_tables import COLUMNS, clip_rows, completion_rows
from trainer.settings.wandb import WandbConfig, wandb_mode
from wandb_server import WandbServer


def tracker(folder) -> RunTracker:
    return RunTracker(WandbConfig(mode="disabled"), folder, "run", "grpo", {"seed": 0}, "abcd1234")


def steps(folder) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.grpo.jsonl").read_text().splitlines()]


def test_a_resumed_run_records_every_step_once(tmp_path):
    first = tracker(tmp_path)
    for step in range(1, 8):
        first.log(step, {"reward": step / 10})
    first.finish(1)
    with (tmp_path / "metrics.grpo.jsonl").open("a") as file:
        file.write('{"step": 8, "rew')  # the crash came in the middle of a line

    second = tracker(tmp_path)
    second.resume_from(5, elapsed=100.0)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    second.log(6, {"reward": 0.6})
    second.finish()
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    last = json.loads((tmp_path / "metrics.grpo.jsonl").read_text().splitlines()[-1])
    assert 100.0 <= last["elapsed_s"] < 130.0


def test_a_job_that_never_recorded_can_be_resumed(tmp_path):
    fresh = tracker(tmp_path)
    fresh.resume_from(0, elapsed=0.0)
    fresh.log(1, {"reward": 0.0})
    fresh.finish()
    assert steps(tmp_path) == [1]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="wandb.mode is 'onlin'"):
        wandb_mode(WandbConfig(mode="onlin"))


@pytest.mark.parametrize("job", ["sft", "grpo"])
def test_a_trial_of_a_wandb_agent_is_its_rl_run_mocked(tmp_path, monkeypatch, job):
    given = {}

    def init(**arguments):
        given.update(arguments, sweep=os.environ.get("WANDB_SWEEP_ID"))
        return SimpleNamespace(define_metric=lambda *names, **options: None)

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    RunTracker(WandbConfig(mode="disabled"), tmp_path, "run", job, {}, "abcd1234")
    expected = {"sft": ("abcd1234", None), "grpo": (None, "s1")}[job]
    assert (given["id"], given["sweep"]) == expected


def records(path):
    """The raw records of a `.wandb` file: LevelDB's log format behind a header of seven bytes, blocks of 32 KiB."""
    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])  # behind a checksum
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of it, or its last part
            yield whole
            whole = b""


def read_back(folder):
    """What an offline run's file holds: history rows by step, the summary, and what the run is."""
    from wandb.proto import wandb_internal_pb2

    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    history, summary, about = {}, {}, {}
    found, deadline = [], time.monotonic() + 20
    while not any(record.WhichOneof("record_type") == "exit" for record in found):  # W&B's process writes it out late
        assert time.monotonic() < deadline, "the file was never finished"
        time.sleep(0.05)
        found = [wandb_internal_pb2.Record.FromString(raw) for raw in records(path)]
    for record in found:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            history.setdefault(row["_step"], {}).update(row)
        elif kind == "summary":
            for item in record.summary.update:
                summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "run":
            run = record.run
            about = {item.key: json.loads(item.value_json) for item in run.config.update}
            about |= {"id": run.run_id, "group": run.run_group, "job": run.job_type, "tags": list(run.tags)}
    return history, summary, about


def test_an_offline_file_holds_what_was_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb" / "data"))  # as a run sets it, once a process
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.zeros(32000), 16000)
    reference = (Event(0.2, 1.0, "siren"),)
    sample = Sample("clip-1", "sed", clip, 2.0, "What?", reference, reference)
    config = WandbConfig(mode="offline", group="sweep", tags="a, b")
    one = RunTracker(config, tmp_path, "run", "grpo", {"seed": 3, "grpo": {"max_steps": 2}}, "abcd1234")
    one.table(0, "eval/sft/clips", COLUMNS, clip_rows(score([sample], ["<0.24>siren<1.04>"]), 6))
    for step in (1, 2):
        one.log(step, {"reward": 0.5 / step, "rewards/eb_f1/mean": 0.25 * step})
    one.summary({"eval/grpo/eb_f1_micro": 0.75})
    one.finish()

    history, summary, configuration = read_back(tmp_path)
    assert {key: configuration[key] for key in ("id", "group", "job", "tags", "seed")} == {
        "id": "abcd1234", "group": "sweep", "job": "grpo", "tags": ["a", "b"], "seed": 3,
    }  # fmt: skip
    assert configuration["grpo"] == {"max_steps": 2}
    for step in (1, 2):
        assert history[step]["reward"] == 0.5 / step
        assert history[step]["rewards/eb_f1/mean"] == 0.25 * step
    assert summary["eval/grpo/eb_f1_micro"] == 0.75
    table = json.loads(next((tmp_path / "wandb").glob("*/files/media/table/eval/sft/clips_*.json")).read_text())
    (row,) = (dict(zip(table["columns"], values, strict=True)) for values in table["data"])
    assert (row["id"], row["metric"], row["score"]) == ("clip-1", "eb_f1_micro", 1.0)
    assert (row["reference"], row["answer"]) == ("0.20-1.00 siren", "<0.24>siren<1.04>")
    kept = [path.read_bytes() for path in (tmp_path / "wandb" / "data").rglob("*") if path.is_file()]
    assert clip.read_bytes() in kept  # the sound, and a picture
    assert any(content.startswith(b"\x89PNG") for content in kept)


def test_a_resumed_offline_run_is_one_run_with_every_step_once(tmp_path):
    """What `wandb sync` takes of a job that was killed at step 5, behind a checkpoint at 3, and resumed."""
    config = WandbConfig(mode="offline")
    for first, last, elapsed in ((1, 5, 0.0), (4, 8, 30.0), (7, 9, 60.0)):
        one = RunTracker(config, tmp_path, "run", "grpo", {"seed": 3}, "abcd1234")
        assert one.is_new
        one.resume_from(first - 1, elapsed)
        for step in range(first, last + 1):
            one.log(step, {"reward": step / 10})
        one.finish(1 if last < 9 else 0)
    history, _, about = read_back(tmp_path)  # of the one folder that is left for `wandb sync`
    assert about["id"] == "abcd1234"
    assert {step: row["reward"] for step, row in history.items()} == {step: step / 10 for step in range(1, 10)}
    assert all(row.keys() == {"_step", "_timestamp", "_runtime", "elapsed_s", "reward"} for row in history.values())
    when = [row["_timestamp"] for _, row in sorted(history.items())]
    assert when == sorted(when) and when[-1] - when[0] > 50  # as long as the training took, not the replay
    assert len(list((tmp_path / "wandb" / "earlier").glob("*.offline-run-*"))) == 2

    rows = uploaded(tmp_path, (tmp_path / "wandb").glob("offline-run-*"))["abcd1234"]  # as in the README
    assert [(row["_step"], row["reward"]) for row in rows] == [(step, step / 10) for step in range(1, 10)]


def uploaded(home, parts) -> dict[str, list[dict]]:
    """What `wandb sync` takes of some folders, by the run's id."""
    server = WandbServer()
    try:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
        environment |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "HOME": str(home)}
        command = [sys.executable, "-m", "wandb", "sync", *map(str, parts)]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    return server.rows


def test_the_sft_of_a_stage_is_uploaded_with_the_run_that_uses_it(tmp_path):
    run, work = tmp_path / "runs" / "one", tmp_path / "runs" / "cache" / "sft-1" / "work"
    for folder, job, run_id in ((work, "sft", "wxyz9876"), (run, "grpo", "abcd1234")):
        folder.mkdir(parents=True)
        one = RunTracker(WandbConfig(mode="offline"), folder, "run", job, {"seed": 3}, run_id)
        one.resume_from(0, 0.0)
        one.log(1, {"loss": 0.5})
        one.finish()
    (work / "tensorboard" / "sft").mkdir(parents=True)
    for _ in range(2):  # a run that is resumed links again
        link_records(run, work)
    (tmp_path / "runs").rename(tmp_path / "moved")
    run = tmp_path / "moved" / "one"
    read_back(tmp_path / "moved" / "cache" / "sft-1" / "work")  # waits until W&B has written it
    rows = uploaded(tmp_path, (run / "wandb").glob("offline-run-*"))
    assert {name: [row["loss"] for row in own] for name, own in rows.items()} == {"wxyz9876": [0.5], "abcd1234": [0.5]}
    assert (run / "tensorboard" / "sft").is_dir()


def test_tensorboards_files_hold_every_step_once_over_a_resume(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = WandbConfig(mode="disabled", tensorboard=True)
    for first, last in ((1, 5), (4, 8)):
        one = RunTracker(config, tmp_path, "run", "grpo", {}, "abcd1234")
        one.resume_from(first - 1, 0.0)
        for step in range(first, last + 1):
            one.log(step, {"reward": float(10 * first + step)})
        one.chart(last, {"eval/test/eb_f1_micro": 0.25})
        one.finish()
    found = EventAccumulator(str(tmp_path / "tensorboard" / "grpo"))
    found.Reload()
    expected = [(step, 10.0 + step) for step in (1, 2, 3)] + [(step, 40.0 + step) for step in range(4, 9)]
    assert [(event.step, event.value) for event in found.Scalars("reward")] == expected
    assert [(event.step, event.value) for event in found.Scalars("eval/test/eb_f1_micro")] == [(8, 0.25)]
    assert steps(tmp_path) == list(range(1, 9))  # the file holds what was logged, not what is charted


def test_tensorboard_without_its_package_is_refused_with_what_to_install(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("trainer.settings.wandb.distribution", missing)
    with pytest.raises(ValueError, match=r"wandb.tensorboard=true needs the package tensorboard: .*-m pip install"):
        WandbConfig(tensorboard=True).check()
    WandbConfig().check()


def test_a_steps_answers_become_a_table_with_what_they_earned():
    reference = (Event(0.2, 1.0, "siren"),)
    sample = Sample("clip-1", "sed", Path("a.wav"), 2.0, "What?", reference, reference)
    group = ScoredGroup(
        sample, None, ["none", "siren 0.20-1.00"], np.array([np.nan, 1.5]), {"eb_f1": np.array([0.0, 1.0])}, {}
    )
    columns, rows = completion_rows([group], [np.array([-1.0, 1.0])])
    assert dict(zip(columns, rows[1], strict=True)) == {
        "id": "clip-1", "question": "What?", "reference": "0.20-1.00 siren", "answer": "siren 0.20-1.00",
        "reward": 1.5, "eb_f1": 1.0, "advantage": 1.0,
    }  # fmt: skip
    assert rows[0][columns.index("reward")] is None  # not scored


def test_parts_of_other_runs_stay_where_they_are(tmp_path):
    other = tmp_path / "wandb" / "offline-run-20260101_000000-wxyz9876"
    other.mkdir(parents=True)
    RunTracker(WandbConfig(mode="offline"), tmp_path, "run", "grpo", {}, "abcd1234").finish()
    assert other.is_dir()


def test_what_the_server_has_already_is_not_told_again_mocked(tmp_path, monkeypatch):
    told = []

    def init(**arguments):
        return SimpleNamespace(
            define_metric=lambda *names, **options: None, starting_step=4, finish=lambda exit_code: None,
            log=lambda row, step: told.append(step),
        )  # fmt: skip

    monkeypatch.setattr("wandb.init", init)
    (tmp_path / "metrics.grpo.jsonl").write_text("".join(f'{{"step": {s}, "elapsed_s": {s}}}\n' for s in (1, 2, 3, 4)))
    one = RunTracker(WandbConfig(mode="online"), tmp_path, "run", "grpo", {}, "abcd1234")
    assert not one.is_new
    one.resume_from(3, 3.0)
    one.log(4, {"reward": 0.5})
    assert told == [4] and steps(tmp_path) == [1, 2, 3, 4]
