"""What a run needs of memory, against what is there, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timepro.config import load_experiment
from timepro.system import device
from trainer.launcher import doctor
from trainer.launcher.doctor import _cards, _memory
from trainer.launcher.needs import card_problems, host_gib, needs_of, parameters_of
from trainer.launcher.nodes.node import Node
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The files of a checkpoint of 7.6 billion parameters in bfloat16, without the bytes."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "qwen2_5_omni", "thinker_config": {"dtype": "bfloat16"}})
    )
    for i in range(2):
        with (folder / f"model-{i}.safetensors").open("wb") as file:
            file.truncate(7_600_000_000)  # sparse: no disk is used
    return folder


def load(experiment: str, *overrides: str) -> ExperimentConfig:
    return load_experiment(experiment, overrides, ExperimentConfig, EXPERIMENTS)


def test_full_fine_tuning_takes_sixteen_bytes_a_parameter_over_all_ranks(published: Path) -> None:
    assert parameters_of(published) == pytest.approx(7.6e9)
    config = load("sed_grpo", f"model.path={published}", "grpo.kl.coefficient=0")
    for n_ranks, gpu in ((1, True), (8, True), (2, False)):
        needs = needs_of(config, n_ranks, gpu)
        assert needs.rank * n_ranks == pytest.approx(16 * 7.6e9 / 2**30)
        assert needs.worker == pytest.approx((2 if gpu else 4) * 7.6e9 / 2**30)
    config.zero.offload_optimiser = True
    needs = needs_of(config, 4, True)
    assert (needs.rank * 4, needs.rank_host * 4) == pytest.approx((4 * 7.6e9 / 2**30, 12 * 7.6e9 / 2**30))
    assert host_gib(needs, 2, 3, gpu=True) == pytest.approx(2 * needs.rank_host)
    config.zero.offload_optimiser, config.lora.rank = False, 8
    assert needs_of(config, 4, True).rank * 4 == pytest.approx(2 * 7.6e9 / 2**30)
    config.lora.rank, config.grpo.kl.coefficient = 0, 0.1
    assert needs_of(config, 1, True).rank == pytest.approx(18 * 7.6e9 / 2**30)


def test_the_papers_settings_fit_eight_cards_of_eighty_gib(published: Path) -> None:
    config = load("qwen2_5_omni_7b/sed_grpo", f"model.path={published}")
    needs = needs_of(config, 4, True)
    assert card_problems(config, needs, [79.6] * 8, 4, 4) == []
    (problem,) = card_problems(config, needs, [79.6] * 4 + [16.0] * 1 + [79.6] * 3, 4, 4)
    assert "a worker's weights take 14.2 GiB of card 4, but rollout.gpu_memory_fraction=0.85 leaves it 13.6" in problem
    config.lora.rank = 0
    config.learner.gpus = "0"
    (problem,) = card_problems(config, needs_of(config, 4, True), [79.6] * 8, 4, 4)
    assert problem.startswith("card 0 has 79.6 GiB, but the ranks and workers on it take at least 113.2")


def test_everybody_on_one_card(published: Path) -> None:
    config = load("sed_grpo", f"model.path={published}", "lora.rank=8", "learner.ranks=1")
    assert card_problems(config, needs_of(config, 1, True), [79.6], 1, 1) == []
    config.rollout.gpu_memory_fraction = 0.9
    (problem,) = card_problems(config, needs_of(config, 1, True), [79.6], 1, 1)
    assert "learner.gpus, rollout.gpus" in problem


def test_without_grpo_workers_are_counted_but_not_beside_the_learner(published: Path) -> None:
    words = [f"model.path={published}", "lora.rank=8", "learner.ranks=1", "rollout.gpu_memory_fraction=0.9"]
    config = load("sed_grpo", *words, "grpo.enabled=false", "control.enabled=false")
    needs = needs_of(config, 1, True)
    assert card_problems(config, needs, [79.6], 1, 1) == []  # the learner has ended where the worker starts
    problems = card_problems(config, needs, [15.0], 1, 1)
    assert "a worker's weights take 14.2 GiB of card 0" in problems[0]
    needs = needs_of(config, 1, False)
    rank, worker = needs.rank + needs.rank_host, needs.worker + needs.cache
    assert worker > 0
    assert host_gib(needs, 1, 1, gpu=False) == pytest.approx(max(rank, worker))
    assert host_gib(needs, 1, 9, gpu=False) == pytest.approx(9 * worker)


@pytest.fixture
def without_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "on_gpu", lambda: False)
    monkeypatch.delenv("TIMEPRO_DEVICE", raising=False)


def found(config: ExperimentConfig) -> dict[str, tuple[str, str]]:
    """State and text of the two findings."""
    return {"GPUs": _cards(config, Node()), "memory": _memory(config, Node())}


def test_a_published_checkpoint_does_not_fit_a_machine_without_cards(
    published: Path, tmp_path: Path, without_cards: None
) -> None:
    config = load("qwen2_5_omni_7b/sed_grpo", f"model.path={published}", f"runs={tmp_path / 'runs'}")
    findings = found(config)
    assert findings["GPUs"][0] == "fail"
    assert "none, but learner.gpus=0,1,2,3 and rollout.gpus=4,5,6,7" in findings["GPUs"][1]
    config.learner.gpus = config.rollout.gpus = ""
    findings = found(config)
    assert findings["GPUs"][0] == "ok"
    state, said = findings["memory"]
    assert state == "fail" and "7.60 billion parameters: at least" in said and "GiB of main memory" in said


def test_a_checkpoint_that_is_not_there_is_no_ok(tmp_path: Path, without_cards: None) -> None:
    config = load("qwen2_5_omni_7b/sed_grpo", f"model.path={tmp_path / 'gone'}", f"runs={tmp_path / 'runs'}")
    state, said = found(config)["memory"]
    assert state == "fail" and "gone is not there, so what the run needs is not known" in said


def test_the_embedded_model_fits_and_a_huge_one_does_not(tmp_path: Path, without_cards: None) -> None:
    config = load("sed_grpo", f"runs={tmp_path / 'runs'}")
    assert found(config)["memory"][0] in ("ok", "note")
    config.model.tiny.from_scratch = True
    config.model.tiny.hidden_size, config.model.tiny.layers = 16384, 200
    assert found(config)["memory"][0] == "fail"


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, (79.6, 15.7)), ("1", (15.7,)), ("1,0", (15.7, 79.6)), ("GPU-uuid", ()), ("", ())]
)
def test_the_drivers_listing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible, expected) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 81559\necho 16076\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    device.gpu_memory_gib.cache_clear()
    try:
        assert device.gpu_memory_gib() == pytest.approx(expected, abs=0.06)
    finally:
        device.gpu_memory_gib.cache_clear()
