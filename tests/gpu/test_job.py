"""The main job in miniature on one card, which worker and learner share: SFT, GRPO, sync, evaluation."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import miniature
from vllm_build import missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
STEPS = 5
OVERRIDES = [
    "data.sft_clips=48", "data.rl_clips=24", "data.test_clips=12", "sft.max_steps=12", "sft.encoder_warmup.steps=4",
    f"grpo.max_steps={STEPS}", "grpo.groups.prompts_per_step=4", "grpo.groups.group_size=8",
    "rewards={name: weighted, terms: [{reward: easy_rewards:share_of_times}, {reward: miou, weight: 1.0}]}",
    "wandb.mode=offline",
]  # fmt: skip


def test_the_main_job_runs_to_its_end(tmp_path: Path, note) -> None:
    begun = time.monotonic()
    process = miniature.start(tmp_path / "log.txt", *OVERRIDES, f"runs={tmp_path}", "name=card")
    try:
        code = process.wait(timeout=500)
    finally:
        process.kill()
    assert code == 0, (tmp_path / "log.txt").read_text()[-4000:]
    note("seconds of the main job in miniature", time.monotonic() - begun)
    lines = [json.loads(line) for line in (tmp_path / "card" / "metrics.grpo.jsonl").read_text().splitlines()]
    seconds = [line["step_time"] for line in lines if "step_time" in line]
    assert len(seconds) >= STEPS
    rate = 32 * len(seconds[1:]) / sum(seconds[1:])
    note("samples a second end to end, 4 prompts x 8 answers, after the first step", rate)
