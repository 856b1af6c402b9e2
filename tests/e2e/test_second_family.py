"""The other family and the other settings, end to end: Qwen2-Audio, adapters, a KL term, all tasks, resampling.

Among the tasks is one of a user's own, from a folder outside the repository.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import miniature
import toy_task
from reference_models import greedy_answer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SPEC = "users_task:FirstSound"
OVERRIDES = [
    "name=second",
    "model.tiny.family=qwen2_audio",
    "model.tiny.from_scratch=true",
    f"task={{sed: 1, ag: 1, dac: 1, {SPEC}: 1}}",
    "data.sft_clips=24",
    "data.rl_clips=12",
    "data.test_clips=8",
    "sft.max_steps=8",
    "sft.optimiser.learning_rate=2e-3",
    "sft.encoder_warmup.steps=2",
    "sft.soft_time.weight=0.5",
    "lora.rank=4",
    "lora.alpha=16",
    "grpo.max_steps=3",
    "grpo.mask_truncated=false",
    "grpo.groups.prompts_per_step=8",
    "grpo.optimiser.learning_rate=1e-2",
    "grpo.optimiser.warmup_steps=0",
    "grpo.kl={coefficient: 0.05, estimator: k3}",
    "grpo.objective={aggregation: grpo, ratio: sequence}",
    "grpo.advantage.baseline=leave_one_out",
    "grpo.groups.flat_groups=resample",
    # A task from outside by its short name, which is known once the experiment has found it by its import path.
    "rewards={name: by_task, ag: easy_rewards:share_of_times, "
    "first: {name: weighted, as: first_weighted, terms: [{reward: easy_rewards:share_of_times}, {reward: miou}]}, "
    "sed: {name: weighted, terms: [{reward: easy_rewards:share_of_times}, {reward: miou}]}, "
    "dac: {name: weighted, as: captioned, terms: [{reward: easy_rewards:share_of_times}, {reward: meteor}]}}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder; the task's is beside it, and what the training printed in `log.txt`."""
    folder = tmp_path_factory.mktemp("runs")
    assert toy_task.write(folder / "users_folder", "users_task") == SPEC
    (folder / "log.txt").write_text(timepro(folder, *miniature.command(*OVERRIDES, f"runs={folder}")))
    return folder / "second"


def timepro(folder: Path, *command: str) -> str:
    """What a command prints; the task's folder is on PYTHONPATH, as a user's would be."""
    environment = miniature.environment([folder / "users_folder"])
    done = subprocess.run(
        command, cwd=miniature.ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def metrics_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.grpo.jsonl").read_text().splitlines()]


def test_worker_and_learner_agree_from_step_to_step(run: Path) -> None:
    """A ratio of one says that vLLM and the learner give the same log-probabilities, merged adapters included."""
    trained = [m for m in metrics_of(run) if "sampling/importance_sampling_ratio/max" in m]
    assert trained, "no step had a group with spread"
    for metrics in trained:
        assert metrics["sampling/importance_sampling_ratio/max"] == pytest.approx(1.0, abs=1e-4)


def test_the_reference_is_the_model_that_grpo_started_from(run: Path) -> None:
    trained = [m for m in metrics_of(run) if "kl" in m]
    assert trained[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert trained[-1]["kl"] > 1e-6


def test_each_task_has_its_own_metrics_and_rewards(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for stage in ("sft", "grpo"):
        assert set(summary["eval"][stage]) == {"sed", "ag", "dac", "first"}
        assert summary["eval"][stage]["sed"]["n"] == 8
        assert "r_at_0.5" in summary["eval"][stage]["ag"]
        assert 0 <= summary["eval"][stage]["dac"]["meteor"] <= 1
        assert summary["eval"][stage]["first"]["n"] == 8
        assert 0 <= summary["eval"][stage]["first"]["hit"] <= 1
    assert set(summary["gain"]) == {"sed/eb_f1_micro", "ag/miou", "dac/eb_f1_time", "first/hit"}
    own = {
        "sed": {"weighted", "miou"}, "ag": set(), "dac": {"captioned", "meteor"}, "first": {"first_weighted", "miou"}
    }  # fmt: skip
    lines = [json.loads(line) for path in (run / "rollouts").glob("*.jsonl") for line in path.read_text().splitlines()]
    for line in lines:
        task = line["id"].rpartition("@")[2]
        assert line["task"] == task
        assert set(line["answers"][0]["parts"]) == {"by_task", "share_of_times"} | own[task]
    assert {line["task"] for line in lines} == set(own)


def test_a_task_from_outside_is_asked_and_its_results_are_printed(run: Path) -> None:
    lines = [json.loads(line) for path in (run / "rollouts").glob("*.jsonl") for line in path.read_text().splitlines()]
    for line in lines:
        assert line.get("task_spec") == (SPEC if line["task"] == "first" else None)
        if line["task"] == "first":
            assert line["question"] == "When does the first sound occur?"
            assert [event["label"] for event in line["reference"]] == [""]
    printed = " ".join((run.parent / "log.txt").read_text().split())  # the title may be wrapped
    assert "task first: 8 test samples" in printed
    assert "hits" in printed


def test_other_commands_read_the_run(run: Path) -> None:
    folder, command = run.parent, [sys.executable, "-m", "timepro.cli"]
    timepro(folder, *command, "report", str(run), "--out", str(folder / "report.html"))
    assert re.search(r'"first": ?"hit"', (folder / "report.html").read_text())
    (line,) = [json.loads(text) for text in (run / "eval" / "grpo.jsonl").read_text().splitlines()][-1:]
    timepro(folder, *command, "plot", "clip", str(run), line["id"], "--out", str(folder / "clip.png"))
    assert (folder / "clip.png").stat().st_size > 5_000


def test_only_adapted_weights_changed_and_the_adapter_is_exported(run: Path) -> None:
    from safetensors.torch import load_file

    job = json.loads((run / "job.grpo.json").read_text())
    before, after = (
        load_file(folder / "model.safetensors") for folder in (Path(job["checkpoint"]), run / "checkpoint")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("_proj.weight" in name and ".layers." in name for name in changed)
    adapter = load_file(run / "checkpoint" / "adapter" / "adapter_model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    stem = "base_model.model.model.language_model.layers.0.mlp.up_proj"
    a, b = adapter[f"{stem}.lora_A.weight"], adapter[f"{stem}.lora_B.weight"]
    torch.testing.assert_close(before[name] + 16 / 4 * b @ a, after[name], rtol=0, atol=1e-6)


def test_the_worker_answers_with_the_merged_weights(run: Path) -> None:
    """After the last sync the worker's greedy answers are Hugging Face's with the exported weights."""
    from timepro.data.manifest import read_manifest
    from timepro.features import Processor
    from timepro.tasks.samples import samples_of_tasks

    job = json.loads((run / "job.grpo.json").read_text())
    processor = Processor(run / "checkpoint")
    model = processor.family.load(run / "checkpoint", torch.float32)
    lines = map(json.loads, (run / "eval" / "grpo.jsonl").read_text().splitlines())
    answers = {line["id"]: line["answer"] for line in lines}
    samples = [s for part in samples_of_tasks(read_manifest(Path(job["test"])), ["sed", "ag", "dac"]) for s in part]
    assert {sample.id for sample in samples} == {name for name in answers if not name.endswith("@first")}
    for sample in samples:
        assert greedy_answer(processor, model, sample) == answers[sample.id]
