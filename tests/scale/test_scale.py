"""What the paper's experiments configure, run once a family with the sizes alone replaced.

Two ranks and two workers on checkpoints of the published shape: SFT and GRPO with adapters, weight sync, a run that is
stopped and resumed, export, evaluation.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from scale_model import EXPERIMENTS, SHARDS, build, settings_of, write_data
from timepro.config import load_experiment
from timepro.data.manifest import read_manifest
from trainer.launcher.checks import check
from trainer.settings.experiment import ExperimentConfig

ROOT = EXPERIMENTS.parent
TASKS = ("sed", "ag", "dac")
OWN = {"name", "task", "data", "rewards"}  # what experiments of one family differ in
# Sizes alone: machines, numbers of steps, clips and tokens. `compile` and `auto` follow the machine.
SIZES = [
    "learner={ranks: 2, gpus: '', threads: 1}",
    "rollout={workers: 2, gpus: '', threads: 1, compile: false, dtype: bfloat16, kv_cache_mib: 256}",
    "zero.dtype=bfloat16",
    "sft.epochs=0", "sft.max_steps=2", "sft.batch_size=4", "sft.log_every=1", "sft.validate_every=2",
    "grpo.max_steps=3", "grpo.groups={prompts_per_step: 3, group_size: 4, max_tokens: 16}",
    "grpo.mask_truncated=false",  # so short an answer is always cut off
    "grpo.checkpoints.save_every=1", "evaluation.max_tokens=16", "wandb.mode=disabled",
]  # fmt: skip


def whole_run(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that starts one: `-m "not e2e"` replaces the project's own `-m`, and is to leave it out too."""
    return pytest.mark.scale(pytest.mark.e2e(pytest.mark.slow(test)))


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen2_audio"])
def test_the_experiments_of_a_family_have_equal_settings(family: str) -> None:
    """So that one run stands for all of them; those over two nodes differ in who does what, and SFT stops earlier."""
    alike = [_shared(f"{family}_7b/{task}_grpo") for task in TASKS]
    assert alike[0] == alike[1] == alike[2]
    names = {path.stem for path in (EXPERIMENTS / f"{family}_7b").glob("*.yaml")}
    assert names == {*(f"{task}_grpo" for task in TASKS), "sed_grpo_two_nodes", "sed_sft"}
    for name, where in (("sed_grpo_two_nodes", {"nodes", "learner", "rollout"}), ("sed_sft", {"grpo"})):
        found = _shared(f"{family}_7b/{name}")
        assert {key for key in found if found[key] != alike[0][key]} == where


def _shared(name: str) -> dict[str, Any]:
    return {key: value for key, value in asdict(settings_of(name)).items() if key not in OWN}


def overrides(family: str, folder: Path) -> list[str]:
    """All tasks of a family in one run, each with its experiment's reward and a little for spread."""
    rewards = {"name": "by_task"}
    for task in TASKS:
        own = settings_of(f"{family}_7b/{task}_grpo").rewards
        terms = [{"reward": "easy_rewards:share_of_times"}, {"reward": {**own, "as": f"own_{task}"}}]
        rewards[task] = {"name": "weighted", "as": f"weighted_{task}", "terms": terms}
    data = {split: str(path) for split, path in write_data(folder / "data").items()}
    return [
        *SIZES, f"task={json.dumps(dict.fromkeys(TASKS, 1))}", f"rewards={json.dumps(rewards)}",
        f"data={json.dumps(data)}", f"model.path={build(folder / 'model', family)}", f"runs={folder / 'runs'}",
        "name=scale",
    ]  # fmt: skip


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "timepro.cli", "train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen[bytes], folder: Path, timeout_s: float) -> int:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"no end within {timeout_s} s:\n{(folder / 'log.txt').read_text()[-3000:]}")


@pytest.mark.slow
def test_the_checkpoint_has_the_published_shape_and_the_run_passes_its_checks(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from timepro.features import Processor

    given = overrides("qwen2_5_omni", tmp_path)
    folder = tmp_path / "model" / "checkpoint"
    weights = {name: tensor for path in folder.glob("model-*.safetensors") for name, tensor in load_file(path).items()}
    assert len(list(folder.glob("model-*.safetensors"))) == SHARDS
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    rows = 152_064 + 768
    assert weights["thinker.lm_head.weight"].shape == weights["thinker.model.embed_tokens.weight"].shape == (rows, 224)
    attention = "thinker.model.layers.1.self_attn"
    assert weights[f"{attention}.q_proj.weight"].shape[0] == 7 * weights[f"{attention}.k_proj.weight"].shape[0]
    assert weights[f"{attention}.q_proj.bias"].float().std() > 0.1
    layout = Processor(folder).layout
    assert layout.first_token_id == 152_064 and layout.answer_style == "digits"
    assert len(layout.banned_token_ids) < 1000  # as published: nearly every token can be an answer's
    config = load_experiment("qwen2_5_omni_7b/sed_grpo", given, ExperimentConfig, EXPERIMENTS)
    check(config)
    audio = {clip.audio.parent for clip in read_manifest(Path(config.data.rl))}
    assert not any(path.is_relative_to(Path(config.data.rl).parent) for path in audio)


@pytest.fixture(scope="module", params=["qwen2_5_omni", "qwen2_audio"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A finished run; Omni's was stopped in the middle of GRPO and resumed."""
    family, folder = request.param, tmp_path_factory.mktemp("scale")
    arguments = [f"{family}_7b/sed_grpo", *overrides(family, folder)]
    run = folder / "runs" / "scale"
    process = start(folder, *arguments)
    if family == "qwen2_5_omni":
        until = time.monotonic() + 400
        while not (run / "checkpoints" / "step-000001" / "state.json").is_file():
            assert process.poll() is None and time.monotonic() < until, (folder / "log.txt").read_text()[-4000:]
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert ended(process, folder, 120) == 130, (folder / "log.txt").read_text()[-4000:]
        process = start(folder, *arguments, "--resume")
    assert ended(process, folder, 500) == 0, (folder / "log.txt").read_text()[-4000:]
    return family, run


@whole_run
def test_every_step_is_trained_and_synced_and_worker_and_learner_agree(run: tuple[str, Path]) -> None:
    _, folder = run
    steps = [json.loads(line) for line in (folder / "metrics.grpo.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    for step in steps:
        assert step["perf/skipped_step"] == 0 and step["grad_norm"] > 0
        # In bfloat16 vLLM and the learner round differently.
        assert step["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=0.05)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["sync"]["checksum_failures"] == 0 and summary["sync"]["count"] == 3
    for stage in ("sft", "grpo"):
        assert set(summary["eval"][stage]) == set(TASKS)
    workers = {
        json.loads(line)["worker"] for path in (folder / "rollouts").glob("*") for line in path.read_text().splitlines()
    }
    assert len(workers) >= 2  # of the resumed run, or of one


@whole_run
def test_the_result_has_the_published_names_and_loads(run: tuple[str, Path]) -> None:
    from safetensors import safe_open

    from timepro.features import Processor

    _, folder = run
    result, source = folder / "checkpoint", Path(json.loads((folder / "job.grpo.json").read_text())["checkpoint"])

    def layout(checkpoint: Path) -> dict[str, tuple[tuple[int, ...], str]]:
        found = {}
        for path in checkpoint.glob("*.safetensors"):
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    part = file.get_slice(name)
                    found[name] = (tuple(part.get_shape()), part.get_dtype())
        return found

    assert layout(result) == layout(source)
    assert {dtype for _, dtype in layout(result).values()} == {"BF16"}
    assert len(list(source.glob("model-*.safetensors"))) == SHARDS
    processor = Processor(result)
    model = processor.family.load(result, torch.bfloat16)
    assert model.lm_head.weight.shape[0] > 152_064
