"""`timepro plot calibration`: from a manifest and whoever answers to a picture and thresholds that a detector uses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from timepro.cli import main
from timepro.commands import plot_calibration
from timepro.inference.detections import Detection
from timepro.inference.detector import Detector
from timepro.inference.thresholds import read_thresholds

CLIPS = 40


class Scripted:
    """Says of clip k, known by its level: a right "dog" at 0.5 s, and at every second clip a made-up one, less sure."""

    sample_rate, window_s, kind = 16000, 10.0, "share"

    def answer(self, windows):
        return [self._of(round(float(np.abs(window).max()) * 1000) - 1) for window in windows]

    def _of(self, clip: int) -> list[Detection]:
        right = Detection(0.5, 1.0, "dog", 0.6 + 0.4 * (clip % 5) / 4)
        return [right, Detection(1.5, 2.0, "dog", 0.1 + 0.4 * (clip % 7) / 6)] if clip % 2 else [right]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    lines = []
    for k in range(CLIPS):
        soundfile.write(tmp_path / f"{k}.wav", np.full(16000 * 3, (k + 1) / 1000), 16000, subtype="FLOAT")
        event = {"onset": 0.5, "offset": 1.0, "label": "dog"}
        lines.append(json.dumps({"id": str(k), "audio": f"{k}.wav", "duration": 3.0, "events": [event]}))
    (tmp_path / "validation.jsonl").write_text("\n".join(lines))
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "config.json").write_text("{}")

    def scripted(checkpoint: Path, samples: int, threshold: float) -> Detector:
        assert (checkpoint, samples) == (Path("run/checkpoint"), 8)
        return Detector(answerer=Scripted(), threshold=threshold)

    monkeypatch.setattr("timepro.inference.detector.Detector", scripted)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_thresholds_are_chosen_kept_and_used(folder: Path, capsys, monkeypatch) -> None:
    asked = ["plot", "calibration", "run", "validation.jsonl", "--samples", "8", "--precision", "1"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "60 events in 40 clips, 66.7% right; confidence: share of 8 sampled answers" in said
    (picture,) = (folder / "run").glob("calibration-*.png")
    assert imread(picture).shape[1] == 1400
    kept = read_thresholds(folder / "run" / "checkpoint", "share")
    assert kept.of("dog") == kept.default == pytest.approx(0.55)
    assert kept.calibration["precision"] == 1.0 and kept.calibration["chosen"]["dog"]["recall"] == 1.0
    monkeypatch.undo()
    detector = Detector(folder / "run" / "checkpoint", answerer=Scripted())
    found = [len(detector.detect(soundfile.read(folder / f"{k}.wav", dtype="float32")[0])) for k in range(CLIPS)]
    assert found == [1] * CLIPS


def test_events_that_overlap_are_judged_one_by_one(folder: Path, monkeypatch) -> None:
    """Joined to one long event, as a detector without a threshold reports them, none of the three would be right."""

    def variants(self: Scripted, clip: int) -> list[Detection]:
        spans = ((0.5, 1.0, 0.75), (0.2, 0.8, 0.125), (0.7, 1.6, 0.125))
        return [Detection(onset, offset, "dog", sure) for onset, offset, sure in spans]

    monkeypatch.setattr(Scripted, "_of", variants)
    detector = Detector(answerer=Scripted(), threshold=0.0)
    found, clips = plot_calibration.judge(detector, folder / "validation.jsonl", 4)
    assert clips == 4 and found.right.tolist() == [True, False, False] * 4
    assert found.confidence.tolist() == [0.75, 0.125, 0.125] * 4


def test_without_a_precision_nothing_is_kept(folder: Path) -> None:
    out = str(folder / "c.svg")
    assert main(["plot", "calibration", "run", "validation.jsonl", "--samples", "8", "--out", out, "--clips", "7"]) == 0
    assert "expected calibration error" in Path(out).read_text()
    assert not (folder / "run" / "checkpoint" / "detection.json").exists()


def test_wrong_use_is_named(folder: Path, capsys) -> None:
    (folder / "empty.jsonl").write_text("")
    for arguments, words in (
        (["gone", "validation.jsonl"], "gone does not exist; name a checkpoint's folder"),
        (["run", "gone.jsonl"], "gone.jsonl does not exist"),
        (["run", "empty.jsonl", "--samples", "8"], "empty.jsonl"),
    ):
        assert main(["plot", "calibration", *arguments]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plot", "calibration", "run", "validation.jsonl", "--precision", "1.5"])
    assert "'1.5' is not a share above 0" in capsys.readouterr().err


def test_a_run_stands_for_its_checkpoint(folder: Path) -> None:
    checkpoint = folder / "run" / "checkpoint"
    assert plot_calibration.checkpoint_of(folder / "run") == plot_calibration.checkpoint_of(checkpoint) == checkpoint
