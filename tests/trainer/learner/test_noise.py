"""How much of a gradient is noise: the estimates against what they estimate, and against two real ranks' gradients."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ranks import run_ranks
from trainer.learner.grpo import GrpoState
from trainer.learner.noise import Measurements, estimate, halves


@pytest.mark.parametrize(("n_1", "n_2"), [(6, 6), (5, 7), (2, 10)])
def test_the_estimates_are_right_in_the_mean_whatever_the_halves(n_1: int, n_2: int, alone: None) -> None:
    """Prompts' gradients drawn with a known mean and covariance, in two partitions of a parameter."""
    draws, n, generator = 4000, n_1 + n_2, torch.Generator().manual_seed(0)
    mean, deviation = torch.tensor([0.3, -0.2, 0.1, 0.0]), torch.tensor([0.5, 1.0, 0.2, 0.8])
    found = []
    for _ in range(draws):
        prompts = (mean + deviation * torch.randn(n, 4, generator=generator)) / n
        first, whole = prompts[:n_1].sum(0), prompts.sum(0)
        found.append(estimate(first.split(2), whole.split(2), (n_1, n_2)))
    for estimates, true in (
        ([one.noise for one in found], float((deviation**2).sum()) / n),
        ([one.signal for one in found], float((mean**2).sum())),
    ):
        error = np.std(estimates) / draws**0.5
        assert np.mean(estimates) == pytest.approx(true, abs=4 * error)
        assert 4 * error < 0.4 * true  # else anything would pass


def test_a_half_without_rows_tells_nothing(alone: None) -> None:
    assert estimate([], [torch.ones(2)], (0, 1)) is None
    assert estimate([torch.ones(2)], [torch.ones(2)], (1, 0)) is None


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_ranks_with_odd_rows_fill_both_halves_alike(count: int) -> None:
    rows = list(range(count))
    parts = [halves(rows, rank) for rank in (0, 1)]
    assert all(sorted(first + second) == rows for first, second in parts)
    assert sum(len(first) for first, _ in parts) == sum(len(second) for _, second in parts) == count


@pytest.mark.parametrize(
    ("signals", "low", "high", "words"),
    [
        ([2.0, 4.0, 3.0, 3.0], 24 * 6 / (3 + (2 / 3) ** 0.5), 24 * 6 / (3 - (2 / 3) ** 0.5), "38 to 66 prompts"),
        ([-1.0, 2.0], 24 * 6 / 3.5, math.inf, "41 prompts an update, or more"),
        ([-3.0, -3.1], math.inf, math.inf, "no signal was found in updates of 24 prompts"),
    ],
)
def test_a_run_says_at_how_many_prompts_noise_and_signal_are_level(
    signals: list[float], low: float, high: float, words: str
) -> None:
    measured = Measurements()
    for signal in signals:
        assert measured.count > 1 or measured.level(24.0) is None
        measured.add(6.0, signal)
    level = measured.level(24.0)
    assert level is not None and (level.low, level.high) == pytest.approx((low, high))
    assert words in str(level)


def test_the_error_covers_what_is_true_as_often_as_it_says() -> None:
    generator, true, covered = np.random.default_rng(0), 0.1, 0
    for _ in range(1000):
        measured = Measurements()
        for signal in generator.normal(true, 0.5, size=200):
            measured.add(1.0, float(signal))
        level = measured.level(10.0)
        assert level is not None
        covered += level.low <= 10.0 / true <= level.high
    assert 0.93 < covered / 1000 < 0.98


def test_measurements_go_on_after_a_resume() -> None:
    state = GrpoState(step=3)
    state.measured.add(2.0, 1.0)
    assert GrpoState.of(json.loads(json.dumps(asdict(state)))) == state
    assert GrpoState.of({"step": 3}) == GrpoState(step=3)  # of a version that did not measure


MEASURED = """
import json
import sys
from pathlib import Path
import torch
from trainer.learner import distributed
from trainer.learner.learner import Learner
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.noise import halves
from trainer.learner.rows import AnswerTokens, Row
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

distributed.join(90.0)
learner = Learner(Path(sys.argv[1]), OptimiserConfig(), ZeroConfig(persistence_threshold=0),
                  BatchConfig(micro_batch_tokens=12), LoraConfig(rank=int(sys.argv[2])))
learner.start()
said = ["none", "siren <0.40>", "speech <0.20>", "siren <1.00>", "none"][: 5 - 2 * distributed.rank()]
ids = [learner.processor.answer_ids(text) for text in said]
rows = [Row(own, torch.zeros(0, 64), [AnswerTokens(own, supervised=True)]) for own in ids]

def update(rows, measure=False):  # with a rate of 0 the weights stay, and each update is of the same ones
    return learner.update(rows, lambda p, _, m: (cross_entropy_sum(p, m.weights) / 8, {}), 1.0, 0.0, measure)

first, second = halves(rows, distributed.rank())
norms = [update(part).grad_norm for part in (first, second, rows)]
measured = update(rows, measure=True)
if distributed.is_first():
    print(json.dumps({
        "norms": norms, "norm": measured.grad_norm, **vars(measured.gradient_noise),
        "counts": [len(first), len(second)], "micro_batches": measured.micro_batches,
    }))
"""


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 2])
def test_two_ranks_measure_what_their_halves_gradients_say_one_by_one(tiny_checkpoint: Path, lora: int) -> None:
    found = json.loads(run_ranks(MEASURED, tiny_checkpoint, lora)[0])
    assert found["counts"] == [3, 2] and found["micro_batches"] > 2
    first, second, whole = (norm**2 for norm in found["norms"])
    assert found["norm"] ** 2 == pytest.approx(whole, rel=1e-4)
    product, n_1, n_2 = (whole - first - second) / 2, 4, 4  # rank 0 has rows 3 and 2, rank 1 rows 1 and 2
    assert found["noise"] == pytest.approx(first + second - 2 * product, rel=1e-3)
    assert found["signal"] == pytest.approx(product * (n_1 + n_2) ** 2 / (n_1 * n_2), rel=1e-3)
