"""Peaks that were measured on a card, beside those of the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from timepro.families.published import published_named
from trainer.launcher.plan.architecture import of_published
from trainer.launcher.plan.learner import GIB, held, how_of, moments, trained_of
from trainer.launcher.plan.passes import Pass
from trainer.settings.experiment import ExperimentConfig

# Decoder of Qwen2.5-Omni-7B under ZeRO-3 on one H200, 26 November 2026 (`benchmarks/learner_card.py`), GiB of
# `torch.cuda.max_memory_allocated`. Rank of adapters (0: all weights), layers, a micro-batch: rows, tokens of a prompt,
# answers, tokens of an answer, checkpointing; what is held between steps, the peak of the passes, and of a step.
MEASURED = [
    (8, 28, 19, 530, 8, 40, True, 14.93, 21.43, 21.43),
    (8, 28, 5, 1530, 8, 160, True, 14.91, 20.61, 20.61),
    (8, 28, 1, 1530, 16, 531, True, 14.87, 18.94, 18.94),
    (8, 28, 19, 530, 8, 40, False, 14.93, 80.63, 80.63),
    (8, 28, 5, 1530, 8, 160, False, 14.91, 72.64, 72.64),
    (8, 28, 1, 1530, 16, 531, False, 14.87, 56.99, 56.99),
    (0, 16, 19, 530, 8, 40, True, 81.19, 87.18, 90.48),
    (0, 16, 5, 1530, 8, 160, True, 81.18, 86.99, 90.47),
    (0, 16, 1, 1530, 16, 531, True, 81.14, 86.86, 90.43),
    (0, 16, 19, 530, 8, 40, False, 81.19, 121.10, 121.10),
    (0, 16, 5, 1530, 8, 160, False, 81.18, 116.70, 116.70),
]


@pytest.mark.parametrize("case", MEASURED)
def test_the_plan_counts_what_a_card_held(case: tuple[int, int, int, int, int, int, bool, float, float, float]) -> None:
    rank, layers, rows, prompt, answers, answer, checkpointing, kept, of_passes, of_step = case
    config = ExperimentConfig()
    config.lora.rank, config.grpo.batch.gradient_checkpointing = rank, checkpointing
    published = published_named("Qwen2.5-Omni-7B")
    assert published is not None
    whole = of_published(published)
    encoder = replace(whole.encoder, parameters=0)  # was left out
    architecture = replace(whole, decoder=replace(whole.decoder, layers=layers), encoder=encoder)
    batch, bucket = config.grpo.batch, config.zero.reduce_bucket
    trained = replace(trained_of(config, architecture, 1, gpu=True, grpo=True), deltas=False)  # nothing was sent
    how, one = how_of(config, batch, gpu=True), Pass(rows, prompt + answers * (answer - 1), answers, answer)
    always = sum(held(trained, architecture, how, bucket).values()) / GIB
    found = moments(trained, architecture, how, one, batch, bucket)
    peaks = {name: always + sum(parts.values()) / GIB for name, parts in found.items()}
    assert always == pytest.approx(kept, rel=0.02)
    assert max(peaks[name] for name in peaks if "step" not in name) == pytest.approx(of_passes, rel=0.05)
    assert max(peaks.values()) == pytest.approx(of_step, rel=0.05)
