"""Run folders: nothing with results is written over, a resume says what changed, another start is refused."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from timepro.config import load_experiment
from timepro.runs import read_identity
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.launcher.pipeline import Pipeline
from trainer.launcher.runfolder import bind_start, open_run, opened_run
from trainer.launcher.stages import StageLog, cached_stage
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


def config_for(folder: Path, *overrides: str) -> ExperimentConfig:
    return load_experiment("sed_grpo", [f"runs={folder}", *overrides], ExperimentConfig, EXPERIMENTS)


def test_a_run_with_results_moves_aside(tmp_path: Path) -> None:
    first = open_run(config_for(tmp_path), resume=False)
    (first / "eval").mkdir()
    (first / "eval" / "sft.jsonl").write_text("kept")
    identity = read_identity(first)
    second = open_run(config_for(tmp_path), resume=False)
    assert second == first and not (second / "eval").exists()
    assert read_identity(second) != identity
    moved = [path for path in tmp_path.iterdir() if path != second]
    assert [(path / "eval" / "sft.jsonl").read_text() for path in moved] == ["kept"]


def test_a_run_that_is_going_on_is_not_replaced(tmp_path: Path) -> None:
    with opened_run(config_for(tmp_path), resume=False) as run:
        (run / "eval").mkdir()
        for resume in (False, True):
            with pytest.raises(ValueError, match="sed_grpo is in use by process"):
                opened_run(config_for(tmp_path), resume).__enter__()
    assert (run / "eval").is_dir() and list(tmp_path.iterdir()) == [run]
    with opened_run(config_for(tmp_path), resume=True):
        pass


def test_a_run_without_results_is_replaced(tmp_path: Path) -> None:
    (open_run(config_for(tmp_path), resume=False) / "leftover").touch()
    run = open_run(config_for(tmp_path), resume=False)
    assert not (run / "leftover").exists() and list(tmp_path.iterdir()) == [run]


def test_a_run_knows_where_when_and_from_which_code_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    identity = read_identity(open_run(config_for(tmp_path / "link"), resume=False))
    assert identity["home"] == str(tmp_path / "sed_grpo")
    assert time.strptime(identity["started"], "%Y-%m-%d %H:%M:%S%z")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=EXPERIMENTS, capture_output=True, text=True)
    in_checkout = head.returncode == 0
    assert bool(identity["commit"]) == in_checkout
    assert head.stdout.startswith(identity["commit"].rstrip("+"))


def test_resume_keeps_the_identity_and_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(config_for(tmp_path), resume=False)
    identity = read_identity(run)
    open_run(config_for(tmp_path, "grpo.max_steps=7"), resume=True)
    assert read_identity(run) == identity
    assert "grpo.max_steps=7" in capsys.readouterr().err
    assert "max_steps: 7" in (run / "config.yaml").read_text()


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to resume"):
        open_run(config_for(tmp_path), resume=True)


def test_a_run_is_bound_to_the_checkpoint_it_started_from(tmp_path: Path) -> None:
    run = open_run(config_for(tmp_path), resume=False)
    bind_start(run, "abc")
    bind_start(run, "abc")
    with pytest.raises(ValueError, match="another fine-tuned checkpoint.*abc.*def"):
        bind_start(run, "def")


def test_a_resumed_run_starts_from_its_own_fine_tuned_checkpoint(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    with Nodes(config, Node()) as nodes:
        pipeline = Pipeline(config, nodes, open_run(config, resume=False), resume=True)
        assert pipeline.own_start() is None  # nothing is bound yet
        bind_start(pipeline.run, "abc")
        assert pipeline.own_start() is None and not pipeline.log.seconds  # no longer kept
        cached_stage("sft", pipeline.cache, "abc", lambda folder: {}, StageLog(), "")
        assert pipeline.own_start() == (pipeline.cache / "sft-abc" / "checkpoint", "abc")
        assert pipeline.log.seconds == {"sft": 0.0}
