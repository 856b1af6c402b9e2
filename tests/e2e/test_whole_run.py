"""A miniature of the main job with every real part: vLLM, ZeRO-3 on two ranks, the weight stream, W&B offline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
import yaml

import miniature
from reference_models import shortfall
from timepro.card import read_card
from timepro.status.read import status_of
from trainer.learner.trace import read_trace

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STEPS = 5
OVERRIDES = [
    "data.sft_clips=48",
    "data.rl_clips=24",
    "data.test_clips=12",
    "sft.max_steps=12",
    "sft.encoder_warmup.steps=4",
    f"grpo.max_steps={STEPS}",
    "grpo.groups.prompts_per_step=4",
    "grpo.optimiser.learning_rate=1e-3",
    "grpo.optimiser.warmup_steps=0",
    "grpo.groups.temperature=0.7",
    # A reward with spread from the first step: a model after twelve steps of SFT hits no event yet.
    "rewards={name: weighted, terms: [{reward: easy_rewards:share_of_times}, {reward: miou, weight: 1.0}]}",
    "grpo.kl.coefficient=0.01",  # a reference model under ZeRO-3 of its own
    "wandb.mode=offline",
]
PROFILE = ["profile.steps=1", "profile.after=2", "profile.every_rank=true"]
CONTROL = ["control.enabled=true", "control.max_steps=4", "control.validate_every=3"]


def start(folder: Path, *extra: str) -> subprocess.Popen[bytes]:
    """The command that `make train` runs, in a folder of its own."""
    return miniature.start(folder / "log.txt", *OVERRIDES, *extra)


def finish(process: subprocess.Popen[bytes], folder: Path, timeout_s: float = 1200) -> int:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the run did not end within {timeout_s} s:\n{(folder / 'log.txt').read_text()[-3000:]}")


def leftovers(folder: Path) -> list[str]:
    """Command lines of processes that still name a run's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.pid != os.getpid():
            found.append(line[:200])
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(runs: Path) -> Iterator[Path]:
    """An unbroken run."""
    code = finish(start(runs, f"runs={runs}", "name=whole", *CONTROL, *PROFILE), runs)
    assert code == 0, (runs / "log.txt").read_text()[-4000:]
    yield runs / "whole"


def metrics_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.grpo.jsonl").read_text().splitlines()]


def rollouts_of(run: Path, step: int) -> list[dict[str, object]]:
    lines = []
    for path in sorted((run / "rollouts").glob(f"step-{step:06d}.rank*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return lines


def test_run_folder_is_complete(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["experiment"] == "whole"
    assert summary["seed"] == 0
    assert summary["eval"]["sft"]["n"] == summary["eval"]["grpo"]["n"] == 12
    assert summary["sync"]["count"] == STEPS
    assert summary["sync"]["checksum_failures"] == 0
    assert 0.5 < summary["peak_memory_gib"] < 12
    assert yaml.safe_load((whole / "config.yaml").read_text())["grpo"]["max_steps"] == STEPS
    for name in ("examples.png", "curves.png"):
        assert (whole / name).stat().st_size > 5_000
    assert list((whole / "wandb").glob("offline-run-*/run-*.wandb"))
    assert not leftovers(whole.parent)


def test_the_result_says_what_it_is_and_how_to_serve_it(whole: Path) -> None:
    card = read_card(whole / "checkpoint")
    assert card is not None and card.task_names == ["sed"] and set(card.metrics) >= {"sft", "grpo"}
    assert f"serve {whole / 'checkpoint'} --max-model-len" in (whole.parent / "log.txt").read_text()


def test_the_control_trains_on_the_clips_of_grpo_and_ends_with_its_best_step(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    report = json.loads((whole / "control" / "work" / "result.json").read_text())
    own = yaml.safe_load((whole / "control" / "config.yaml").read_text())["sft"]
    assert (own["label_times"], own["max_steps"], own["optimiser"]["learning_rate"]) == ("exact", 4, 1e-3)
    assert yaml.safe_load((whole / "config.yaml").read_text())["sft"]["label_times"] == "auto"
    losses = {
        line["step"]: line["eval/validation/loss"]
        for line in map(json.loads, (whole / "control" / "work" / "metrics.sft.jsonl").read_text().splitlines())
        if "eval/validation/loss" in line
    }
    assert set(losses) == {0, 3, 4} and report["kept_step"] == min(losses, key=lambda step: losses[step])
    assert report["validation_loss"] == pytest.approx(min(losses.values()), rel=1e-5)
    assert summary["eval"]["control"]["n"] == 12
    ((metric, gain),) = summary["gain"].items()
    assert gain["over"] == "control" and summary["gain_over_sft"][metric]["over"] == "sft"
    text = (whole.parent / "log.txt").read_text()
    assert "SFT on GRPO's clips (control)" in text and "GRPO over SFT:" in text


def test_a_step_was_profiled_in_learner_and_worker(whole: Path) -> None:
    folder = whole / "profile"
    page = (folder / "summary.md").read_text()
    assert page.startswith("# Where the time of steps 3 to 3 went")
    for row in (
        "generate",
        "score",
        "rows",
        "reference",
        "train",
        "&nbsp;&nbsp;forward",
        "&nbsp;&nbsp;backward",
        "sync",
    ):
        assert f"| {row} | " in page
    for name in ("learner rank 0", "worker 0"):
        assert f"## Top operators, {name} (" in page
    assert page.count("`aten::") > 10
    for rank in (0, 1):
        assert read_trace(folder / f"learner-{rank}.trace.json.gz").gather > 0
    assert list((folder / "worker-0").glob("*.pt.trace.json.gz"))


def test_the_status_of_a_finished_run(whole: Path) -> None:
    status = status_of(whole)
    assert (status.state, status.step, status.of) == ("finished", STEPS, STEPS)
    (node,) = status.nodes
    assert node.report.ended == "done" and node.report.stage is not None
    assert node.report.stage.name == "evaluate-control"
    assert node.report.peak_gib == pytest.approx(
        json.loads((whole / "summary.json").read_text())["peak_memory_gib"], 0.1
    )


def test_every_answer_is_kept_with_parts_and_weight_version(whole: Path) -> None:
    for step in range(1, STEPS + 1):
        groups = rollouts_of(whole, step)
        assert len(groups) == 4
        for group in groups:
            assert len(group["answers"]) == 4
            for answer in group["answers"]:
                assert answer["weight_version"] == step - 1
                assert set(answer["parts"]) == {"weighted", "share_of_times", "miou"}


def test_first_importance_ratio_is_one(whole: Path) -> None:
    trained = [m for m in metrics_of(whole) if "sampling/importance_sampling_ratio/max" in m]
    assert trained, "no step had a group with spread"
    for metrics in trained:  # strictly on-policy: every step's ratio is the first
        assert metrics["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=1e-4)
        assert metrics["sampling/importance_sampling_ratio/max"] == pytest.approx(1.0, abs=1e-4)


def test_the_reference_is_the_model_that_grpo_started_from(whole: Path) -> None:
    trained = [m for m in metrics_of(whole) if "kl" in m]
    assert trained[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert trained[-1]["kl"] > 1e-6


def test_hugging_face_and_vllm_agree_on_log_probabilities(whole: Path) -> None:
    """Teacher-forced, float32, the same interleaved prompt: Hugging Face's own forward pass on what vLLM sampled."""
    from timepro.data.manifest import read_manifest
    from timepro.features import Processor
    from timepro.tasks.samples import samples_of

    job = json.loads((whole / "job.grpo.json").read_text())
    processor = Processor(job["checkpoint"])
    model = processor.family.load(job["checkpoint"], torch.float32)
    samples = {s.id: s for s in samples_of(read_manifest(Path(job["manifest"])), "sed")}
    worst = 0.0
    for group in rollouts_of(whole, 1):  # sampled from the weights that were loaded
        sample = samples[group["id"]]
        mel = processor.features(sample.audio)
        prompt = processor.expanded_prompt(sample.question, processor.family.audio_frames(mel.shape[-1]))
        for answer in group["answers"]:
            ids = torch.tensor([prompt + answer["token_ids"]])
            positions = torch.arange(ids.shape[1]).expand(3, 1, -1)
            with torch.no_grad():
                logits = model(
                    input_ids=ids,
                    input_features=mel[None],
                    feature_attention_mask=torch.ones(1, mel.shape[-1], dtype=torch.long),
                    position_ids=positions,
                ).logits[0]
            logits = logits / 0.7
            logits[:, list(processor.layout.banned_token_ids)] = float("-inf")
            logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            got = logprobs.gather(1, torch.tensor(answer["token_ids"])[:, None])[:, 0]
            worst = max(worst, (got - torch.tensor(answer["logprobs"])).abs().max().item())
    assert worst < 1e-4


def test_weights_changed_and_frozen_rows_did_not(whole: Path) -> None:
    from timepro.families import family_of
    from timepro.features import Processor

    config = json.loads((whole / "job.grpo.json").read_text())
    family, layout = family_of(whole / "checkpoint"), Processor(whole / "checkpoint").layout
    before = family.load(config["checkpoint"], torch.float32).state_dict()
    after = family.load(whole / "checkpoint", torch.float32).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("layers.0" in name for name in changed)
    assert "lm_head.weight" in changed
    assert not any(name.startswith("audio_tower") for name in changed)
    rows = slice(layout.first_token_id, layout.first_token_id + layout.vocabulary.size)
    embeddings = "model.embed_tokens.weight"
    assert embeddings in changed
    assert torch.equal(before[embeddings][rows], after[embeddings][rows])


def test_worker_answers_with_the_learners_weights(whole: Path) -> None:
    """After the last sync the worker's greedy answers are Hugging Face's greedy answers with the exported weights."""
    from timepro.data.manifest import read_manifest
    from timepro.features import Processor
    from timepro.tasks.samples import samples_of

    job = json.loads((whole / "job.grpo.json").read_text())
    processor = Processor(whole / "checkpoint")
    model = processor.family.load(whole / "checkpoint", torch.float32)
    answers = {
        line["id"]: line["answer"] for line in map(json.loads, (whole / "eval" / "grpo.jsonl").read_text().splitlines())
    }
    for sample in samples_of(read_manifest(Path(job["test"])), "sed"):
        assert shortfall(processor, model, sample, answers[sample.id]) < 1e-4


def wait_for(path: Path, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.is_file():
        assert process.poll() is None, (folder / "log.txt").read_text()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_that_loses_its_worker_and_is_interrupted_ends_with_the_same_numbers(whole: Path, runs: Path) -> None:
    options = (f"runs={runs}", "name=broken", "grpo.checkpoints.save_every=1")
    process = start(runs, *options)
    wait_for(runs / "broken" / "rollouts" / "step-000001.rank0.jsonl", process, runs)
    status = status_of(runs / "broken")
    assert (status.state, status.stage, status.of) == ("running", "grpo", STEPS) and status.phase
    kinds = [(p.kind, p.state) for p in status.nodes[0].report.processes]
    assert kinds == [("rank", "running"), ("rank", "running"), ("worker", "running")]
    assert all(p.memory_gib > 0.1 for p in status.nodes[0].report.processes)
    servers = [p for p in psutil.Process(process.pid).children() if "rollout.serve" in p.cmdline()]
    assert len(servers) == 1
    servers[0].kill()  # its engine stays behind, for the launcher to end
    wait_for(runs / "broken" / "rollouts" / "step-000003.rank0.jsonl", process, runs)
    process.send_signal(signal.SIGINT)
    assert finish(process, runs) == 128 + signal.SIGINT
    assert (status_of(runs / "broken").state, status_of(runs / "broken").why) == ("stopped", "stopped by SIGINT")
    log = (runs / "log.txt").read_text()
    assert "rollout worker 0 ended (exit code -9); starting it again" in log
    assert "worker(s) have weights" in log
    assert not leftovers(runs)
    done = len(metrics_of(runs / "broken"))
    assert done < STEPS, "the run was over before the signal came"
    until_signal_s = json.loads((runs / "broken" / "stages.json").read_text())["seconds"]["grpo"]
    code = finish(start(runs, *options, "--resume"), runs)
    assert code == 0, (runs / "log.txt").read_text()[-4000:]
    assert [m["step"] for m in metrics_of(runs / "broken")] == list(range(1, STEPS + 1))
    for step in range(1, STEPS + 1):
        texts = [[a["text"] for a in g["answers"]] for g in rollouts_of(whole, step)]
        assert [[a["text"] for a in g["answers"]] for g in rollouts_of(runs / "broken", step)] == texts
    taken_s = json.loads((runs / "broken" / "summary.json").read_text())["stages"]["grpo"]
    assert until_signal_s > 10.0 and taken_s > until_signal_s + 10.0  # vLLM alone takes as long at each start
    ids = {json.loads((runs / "broken" / "run.json").read_text())["wandb_id"]}
    parts = (runs / "broken" / "wandb").glob("offline-run-*/run-*.wandb")
    # SFT's run is there as a link.
    assert {part.stem.removeprefix("run-") for part in parts if not part.parent.is_symlink()} == ids


def test_one_step_ahead_answers_are_one_update_old(whole: Path, runs: Path) -> None:
    code = finish(start(runs, f"runs={runs}", "name=ahead", "grpo.ahead=1"), runs)
    assert code == 0, (runs / "log.txt").read_text()[-4000:]
    metrics = metrics_of(runs / "ahead")
    assert [m["step"] for m in metrics] == list(range(1, STEPS + 1))
    assert [m["sampling/staleness"] for m in metrics] == [0.0] + [1.0] * (STEPS - 1)
    for step in range(1, STEPS + 1):
        versions = {a["weight_version"] for g in rollouts_of(runs / "ahead", step) for a in g["answers"]}
        assert versions == {max(0, step - 2)}
    assert not leftovers(runs)
