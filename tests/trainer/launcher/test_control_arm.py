"""The control's training is done once, wherever the run is interrupted; the learner is a stand-in here."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.config import load_experiment
from trainer.launcher import pipeline as module
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.launcher.pipeline import Pipeline
from trainer.launcher.runfolder import open_run
from trainer.launcher.signals import Interrupted
from trainer.launcher.stages import StageLog
from trainer.messages import CHECKPOINTS, JobSpec, write_result
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


class StandInLearner:
    """Leaves a resumable checkpoint and, unless told to stop, a report."""

    def __init__(self, stops: int) -> None:
        self.stops, self.resumed = stops, list[bool]()

    def __call__(self, job: JobSpec, *_: object) -> None:
        self.resumed.append(job.resume)
        (Path(job.work) / CHECKPOINTS / "step-000001").mkdir(parents=True, exist_ok=True)
        if len(self.resumed) <= self.stops:
            raise Interrupted(2)
        write_result(Path(job.work), {"steps": 1})


@pytest.mark.parametrize(
    ("stops", "resumed"), [(0, [False]), (1, [False, True])], ids=["while evaluated", "while trained and evaluated"]
)
def test_an_interrupted_control_goes_on_where_it_was_with_a_stand_in_learner(
    stops: int, resumed: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"runs={tmp_path}", "control.enabled=true"]
    config = load_experiment("sed_grpo", settings, ExperimentConfig, EXPERIMENTS)
    learner, evaluated = StandInLearner(stops), list[Path]()

    def evaluate(self: Pipeline, checkpoint: Path, name: str) -> None:
        evaluated.append(checkpoint)
        if len(evaluated) == 1:
            raise Interrupted(15)

    monkeypatch.setattr(module, "run_learner", learner)
    monkeypatch.setattr(Pipeline, "evaluate_alone", evaluate)
    with Nodes(config, Node()) as nodes:
        pipeline = Pipeline(config, nodes, open_run(config, resume=False), resume=True)
        pipeline.data = dict.fromkeys(("sft", "rl", "validation", "test"), tmp_path / "clips.jsonl")
        write_result(pipeline.run, {"grpo": {"elapsed": 5.0}})
        for _ in range(stops + 1):
            with pytest.raises(Interrupted):
                pipeline.control_arm(tmp_path / "start")
        pipeline.control_arm(tmp_path / "start")
        assert set(StageLog(record=pipeline.run / "stages.json").seconds) == {"control"}
    assert learner.resumed == resumed
    assert evaluated == [pipeline.run / "control" / "checkpoint"] * 2
    assert capsys.readouterr().err.count("already trained in this run") == 1
