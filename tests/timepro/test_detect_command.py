"""`timepro detect`: what goes where, and what is said of what cannot be heard. A scripted answerer hears loudness."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import timepro.inference.detector as detecting
from loud import BURSTS, LoudAnswerer, bursts, write_media
from timepro.api import evaluate
from timepro.cli import main
from timepro.data.event_files import read_event_file
from timepro.data.event_formats import FORMATS
from timepro.system.files import write_json


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two recordings in `sounds/`; whatever checkpoint is named, loudness answers."""
    checkpoint = tmp_path / "runs" / "mine" / "checkpoint"
    checkpoint.mkdir(parents=True)
    write_json(checkpoint / "config.json", {})
    write_json(checkpoint.parent / "summary.json", {})
    (checkpoint.parent / "config.yaml").write_text("name: mine\n", encoding="utf-8")
    (tmp_path / "sounds" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "sounds" / "a.wav", bursts(16000), 16000)
    soundfile.write(tmp_path / "sounds" / "deep" / "b.flac", np.zeros(16000 * 3), 16000)
    (tmp_path / "sounds" / "notes.txt").write_text("nothing to hear", encoding="utf-8")

    class Scripted(detecting.Detector):
        def __init__(self, checkpoint: Path, **asked) -> None:
            kept = {key: asked[key] for key in ("labels", "threshold", "window", "overlap", "gap", "batch")}
            super().__init__(checkpoint, answerer=LoudAnswerer(), **kept)

    monkeypatch.setattr(detecting, "Detector", Scripted)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()[1:]]


def test_a_folder_is_one_table_on_standard_output_and_notes_are_beside_it(scripted: Path, capsys) -> None:
    assert main(["detect", "sounds"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("filename\tonset\toffset\tevent_label")
    table = rows(said.out)
    assert [row[0] for row in table] == ["sounds/a.wav"] * 3 + ["sounds/deep/b.flac"]
    assert [(float(row[1]), float(row[2])) for row in table[:3]] == pytest.approx(np.array(BURSTS), abs=0.03)
    assert "checkpoint runs/mine/checkpoint, of the newest finished run" in said.err
    assert "1 files left out, neither audio nor video (.txt)" in said.err
    assert "3 events in 2 of 2 sources; 0:27 of sound in 0:0" in said.err and "of real time" in said.err


def test_a_source_that_fails_is_named_and_the_others_go_on(scripted: Path, capsys) -> None:
    (scripted / "sounds" / "bad.wav").write_text("words", encoding="utf-8")
    soundfile.write(scripted / "sounds" / "a\tb.wav", bursts(16000), 16000)
    assert main(["detect", "sounds", "nowhere.wav", "--out", "events.jsonl"]) == 1
    said = capsys.readouterr()
    assert not said.out and "timepro: sounds/bad.wav: cannot be decoded" in said.err
    assert r"'sounds/a\tb.wav' cannot stand in a table; rename the file" in said.err
    assert "timepro: nowhere.wav: no such file" in said.err and "note: wrote events.jsonl" in said.err
    assert set(read_event_file("events.jsonl", "predictions")) == {"sounds/a.wav", "sounds/deep/b.flac"}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_back_to_the_same_events(scripted: Path, name: str, capsys) -> None:
    out = Path(f"events{FORMATS[name].ending}") if FORMATS[name].several else Path("labels")
    assert main(["detect", "sounds/a.wav", "--format", name, "--out", str(out)]) == 0
    path = out if out.is_file() else next(out.rglob("*a*"))
    path = path if path.is_file() else next(p for p in path.rglob("*") if p.is_file())
    [found] = read_event_file(path, "predictions").values()
    assert [(event.onset, event.offset) for event in found.events] == pytest.approx(np.array(BURSTS), abs=0.03)
    assert {event.label for event in found.events} == {"loud"}


def test_the_threshold_and_what_stays_below_it(scripted: Path, capsys) -> None:
    assert main(["detect", "sounds/a.wav", "--threshold", "0.8"]) == 0
    sure = rows(capsys.readouterr().out)
    assert main(["detect", "sounds/a.wav", "--threshold", "loud=0.8", "--all"]) == 0
    said = capsys.readouterr()
    assert len(sure) == 2 and len(rows(said.out)) == 3 and ", and 1 below the threshold" in said.err
    assert main(["detect", "sounds/a.wav", "--labels", "quiet"]) == 0
    assert [row[1:] for row in rows(capsys.readouterr().out) if any(row[1:])] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sounds", "--format", "audacity"], "holds one recording, and these are 2: name a folder with --out"),
        (["sounds", "--out", "events.txt"], "say which --format, audacity or raven"),
        (["sounds", "--out", "events.xyz"], "its ending is that of no format"),
        (["sounds", "--format", "tsv", "--out", "events.jsonl"], "format tsv is one file that ends in .tsv"),
        (["sounds", "--format", "tvs"], "no format 'tvs'.*Did you mean 'tsv'"),
        (["empty"], "empty holds no audio or video file, of 1 files"),
        (["sounds", "--checkpoint", "nowhere"], "nowhere does not exist; name a checkpoint's folder"),
        (["sounds", "--overlap", "8"], "the overlap is from 0 to half of the window"),
    ],
)
def test_wrong_use_is_said_before_anything_is_heard(scripted: Path, words: list[str], told: str, capsys) -> None:
    (scripted / "empty").mkdir()
    (scripted / "empty" / "x.txt").write_text("x", encoding="utf-8")
    assert main(["detect", *words]) == 2
    said = capsys.readouterr()
    assert not said.out and re.search(told, said.err)


def test_without_a_finished_run_it_says_what_to_do(scripted: Path, capsys) -> None:
    (scripted / "runs" / "mine" / "summary.json").unlink()
    assert main(["detect", "sounds"]) == 2
    assert "there is no finished run below runs/ (1 without an end or a checkpoint); name a" in capsys.readouterr().err
    shutil.rmtree(scripted / "runs")
    assert main(["detect", "sounds"]) == 2
    told = capsys.readouterr().err
    assert "there is no finished run below runs/; name a checkpoint with --checkpoint FOLDER, or train one: " in told


def test_a_video_goes_to_subtitles(scripted: Path, capsys) -> None:
    write_media(scripted / "door.mp4", bursts(16000), 16000, video=True)
    assert main(["detect", "door.mp4", "--format", "webvtt"]) == 0
    assert capsys.readouterr().out.startswith("WEBVTT")


def test_a_real_checkpoint_is_heard_in_windows_and_scored(tiny_checkpoint: Path, tmp_path: Path, capsys) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 16000).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    words = ["detect", str(tmp_path / "noise.wav"), "--checkpoint", str(tiny_checkpoint), "--window", "2", "--samples"]
    out = tmp_path / "events.jsonl"
    assert main([*words, "2", "--threshold", "0", "--out", str(out)]) == 0
    assert "share of sampled answers, reported from 0 on" in capsys.readouterr().err
    [line] = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert all(0 <= event["onset"] < event["offset"] <= 3.0 for event in line["events"])
    assert evaluate({str(tmp_path / "noise.wav"): []}, str(out), resamples=0)["event_based"]
