"""`timepro monitor` as it is typed, up to where a model is loaded."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import soundfile

from scripted_answerer import RATE, ScriptedAnswerer, beeps
from timepro.cli import main
from timepro.inference.monitor.build import Ears
from timepro.inference.monitor.monitor import Monitor
from timepro.names import CARD


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a finished run, and recordings."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "a"
    (run / "checkpoint").mkdir(parents=True)
    for name in ("config.yaml", "summary.json", "checkpoint/config.json"):
        (run / name).write_text("{}")
    card = dict.fromkeys(("name", "family", "base"), "x") | dict.fromkeys(
        ("made", "data", "settings", "metrics", "gain"), {}
    )
    card |= {"version": 1, "tasks": ["sed"], "classes": ["dog_bark", "glass_breaking"]}
    (run / "checkpoint" / CARD).write_text(json.dumps(card))
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "20261126T020000Z.wav", beeps(8, (2, 3, 1000)), RATE)
    return tmp_path


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(here.rglob("*"))
    assert main(["monitor", "in", "labels.dog_bark.schedule=[sat]", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for part in ("in (folder)", "runs/a/checkpoint", "dog_bark: confidence the checkpoint's", "sat", "jsonl"):
        assert part in said
    assert "glass_breaking:" not in said  # a label is named, so the others do not alert
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "name a source"),
        (["in", "labels.dog_brk={}"], "'dog_brk' (did you mean dog_bark?)"),
        (["in", "gate.levl_db=-3"], "did you mean gate.level_db"),
        (["in", "--checkpoint", "nowhere"], "nowhere does not exist"),
        (["nowhere"], "source 'nowhere' is nothing that a monitor can listen to"),
        (["in", "--config", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_what_cannot_work_is_told_before_a_model_is_loaded(
    here: Path, words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["monitor", *words]) == 2
    assert part in capsys.readouterr().err


def test_the_example_can_be_given_back(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "--example"]) == 0
    (here / "monitor.yaml").write_text(capsys.readouterr().out)
    assert main(["monitor", "in", "--config", "monitor.yaml", "--dry-run"]) == 0


def test_from_a_run_to_an_alert_in_a_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick start of the README, with a scripted answerer in place of the run's model."""
    monkeypatch.setattr(
        "timepro.inference.monitor.ears.checkpoint_ears", lambda *_: Ears(ScriptedAnswerer(), ("glass_breaking",))
    )
    monkeypatch.setattr("signal.signal", lambda *_: None)
    said: list[str] = []
    monkeypatch.setattr("timepro.commands.monitor.say", said.append)
    words = ["stream.lost_after_s=60", "stream.settle_s=0", "time_zone=UTC"]
    ended = threading.Event()

    def stop_when_told(monitor: Monitor) -> None:
        while not ended.is_set() and not (here / "monitor" / "alerts.jsonl").is_file():
            ended.wait(0.05)
        ended.wait(1.0)
        monitor.stop()

    run = Monitor.run

    def run_and_stop(monitor: Monitor) -> None:
        threading.Thread(target=stop_when_told, args=(monitor,), daemon=True).start()
        run(monitor)

    monkeypatch.setattr(Monitor, "run", run_and_stop)
    assert main(["monitor", "in", *words]) == 0
    first = json.loads((here / "monitor" / "alerts.jsonl").read_text().splitlines()[0])
    assert (first["kind"], first["label"], first["onset"]) == (
        "alert",
        "glass_breaking",
        "2026-11-26T02:00:02.000+00:00",
    )
    assert any("1 alerts" in line for line in said)
