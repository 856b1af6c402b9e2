"""Settings that give time for memory change nothing else, under real ZeRO-3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys
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

def trained(rank, **settings):
    torch.manual_seed(0)
    lora = LoraConfig(rank=rank)
    learner = Learner(Path(sys.argv[1]), OptimiserConfig(), ZeroConfig(persistence_threshold=0),
                      BatchConfig(**settings), lora)
    learner.start()
    calls = []
    for layer in learner._policy.text_model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    ids = learner.processor.answer_ids("none")
    rows = [Row(ids, torch.zeros(0, 64), [AnswerTokens(ids, supervised=True)])] * 3
    def loss(logprobs, entropies, micro):
        return cross_entropy_sum(logprobs, micro.weights), {"loss": logprobs.sum()}
    report = [learner.update(rows, loss, 1.0, 1e-2) for _ in range(2)]
    return len(calls), report, dict(zero.stream_weights(learner.engine))

for rank in (0, 2):
    calls, report, weights = trained(rank)
    for settings, more in (({"gradient_checkpointing": True}, 2), ({"offload_activations": True}, 0),
                           ({"gradient_checkpointing": True, "offload_activations": True}, 2)):
        found = trained(rank, **settings)
        assert found[0] == calls + more, (settings, calls, found[0])  # one layer less than there are, in two steps
        assert found[1] == report, (settings, report, found[1])
        assert all(torch.equal(tensor, found[2][name]) for name, tensor in weights.items()), settings
print("all equal")
"""


@pytest.mark.slow
def test_gradient_checkpointing_and_offload_give_the_same_weights(tiny_checkpoint: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_checkpoint)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and "all equal" in done.stdout, done.stderr[-3000:]
