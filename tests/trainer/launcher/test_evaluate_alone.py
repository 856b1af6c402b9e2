"""A checkpoint is evaluated once in a run, wherever the run is interrupted; no worker is started here."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from timepro.config import load_experiment
from trainer.launcher import pipeline as module
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.launcher.pipeline import Pipeline
from trainer.launcher.runfolder import open_run
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


class WorkersAsked(Exception):
    """Workers were to be started."""


@pytest.mark.parametrize(
    ("evaluated", "lacks", "asked"), [(True, False, False), (False, False, True), (True, True, True)]
)
def test_only_what_has_not_been_asked_starts_workers(
    evaluated: bool,
    lacks: bool,
    asked: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lacking are conditions that were set when the run was resumed."""
    config = load_experiment("sed_sft", [f"runs={tmp_path}"], ExperimentConfig, EXPERIMENTS)

    def workers(self: Pipeline, checkpoint: Path) -> None:
        raise WorkersAsked

    monkeypatch.setattr(Pipeline, "_workers", workers)
    monkeypatch.setattr(module, "evaluation_samples", lambda *_: [])
    with Nodes(config, Node()) as nodes:
        pipeline = Pipeline(config, nodes, open_run(config, resume=False), resume=True)
        pipeline.data = {"test": tmp_path / "clips.jsonl"}
        monkeypatch.setattr(pipeline.conditions, "lacks", lambda name: lacks)
        (pipeline.run / "eval").mkdir(exist_ok=True)
        if evaluated:
            (pipeline.run / "eval" / "sft.jsonl").write_text("", encoding="utf-8")
        with pytest.raises(WorkersAsked) if asked else nullcontext():
            pipeline.evaluate_alone(tmp_path / "start", "sft")
    assert ("evaluate-sft  already done in this run" in capsys.readouterr().err) == evaluated
