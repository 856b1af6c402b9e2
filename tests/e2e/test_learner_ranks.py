"""One rank against two, and one micro-batch against several: the same global batch gives the same gradient.

And a gradient that is not finite: refused, whatever gave it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from timepro.config import load_experiment, save_resolved
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import write_split
from trainer.launcher.jobs import run_learner
from trainer.launcher.nodes.head import Nodes
from trainer.launcher.nodes.node import Node
from trainer.messages import JobSpec
from trainer.settings.experiment import ExperimentConfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("data"), "clips", 12, 0, SoundscapeConfig())


def train(folder: Path, checkpoint: Path, clips: Path, ranks: int, micro_batch_tokens: int) -> list[dict[str, float]]:
    """Four supervised steps of six clips; returns what was logged at each."""
    folder.mkdir()
    overrides = [
        f"learner.ranks={ranks}", f"sft.batch.micro_batch_tokens={micro_batch_tokens}", "sft.max_steps=4",
        "sft.batch_size=6", "sft.encoder_warmup.steps=0", "sft.log_every=1", "sft.optimiser.warmup_steps=0",
        "sft.optimiser.learning_rate=1e-3", "wandb.mode=disabled",
    ]  # fmt: skip
    config = load_experiment("sed_grpo", overrides, ExperimentConfig, EXPERIMENTS)
    save_resolved(config, folder / "config.yaml")
    job = JobSpec(
        kind="sft", config=str(folder / "config.yaml"), checkpoint=str(checkpoint), manifest=str(clips),
        validation=str(clips), output=str(folder / "out"), work=str(folder), title="SFT", run_id="x",
    )  # fmt: skip
    run_learner(job, config, None, Nodes(config, Node()))
    lines = [json.loads(line) for line in (folder / "metrics.sft.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]  # the last one holds the validation's


def test_gradient_does_not_depend_on_ranks_or_micro_batches(tmp_path: Path, tiny_checkpoint: Path, clips: Path) -> None:
    expected = train(tmp_path / "one", tiny_checkpoint, clips, ranks=1, micro_batch_tokens=16384)
    assert len(expected) == 4
    for name, ranks, tokens in (("cut", 1, 1100), ("two", 2, 700)):
        metrics = train(tmp_path / name, tiny_checkpoint, clips, ranks, tokens)
        for wanted, got in zip(expected, metrics, strict=True):
            # Float32 sums in another order; Adam then carries the difference on.
            assert got["loss"] == pytest.approx(wanted["loss"], rel=2e-5)
            assert got["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=2e-4)


REFUSED = """
import sys
import traceback
from pathlib import Path
import torch
from trainer.learner import distributed, zero
from trainer.settings.batch import BatchConfig
from trainer.learner.learner import Learner
from trainer.settings.lora import LoraConfig
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.rows import AnswerTokens, Row
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

store = distributed.join_alone()
settings = OptimiserConfig(max_refused_steps=2)
learner = Learner(Path(sys.argv[1]), settings, ZeroConfig(), BatchConfig(), LoraConfig())
learner.start()
ids = learner.processor.answer_ids("none")
rows = [Row(ids, torch.zeros(0, 64), [AnswerTokens(ids, supervised=True)])]

def weights():
    return {name: tensor for name, tensor in zero.stream_weights(learner.engine)}

def update(factor):
    return learner.update(rows, lambda p, _, m: (factor * cross_entropy_sum(p, m.weights), {}), 1.0, 1e-2)

before = weights()
assert update(float("nan")).refused
assert all(torch.equal(tensor, before[name]) for name, tensor in weights().items())
assert not update(1.0).refused
moved = weights()
assert all(tensor.isfinite().all() for tensor in moved.values())
assert any(not torch.equal(tensor, before[name]) for name, tensor in moved.items())
assert update(float("inf")).refused  # the finite step between has started the count again
try:
    update(float("nan"))
except distributed.FailedTogether:
    traceback.print_exc()
    distributed.leave(1)
"""


def test_a_gradient_that_is_not_finite_changes_nothing_and_stops_at_the_limit(tiny_checkpoint: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tiny_checkpoint)],
        env=environment, cwd=EXPERIMENTS.parent, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.stderr.count("the gradient was not finite: this step changes nothing") == 2
    assert done.returncode == 1 and "not finite in 2 steps in a row (max_refused_steps)" in done.stderr, done.stderr
