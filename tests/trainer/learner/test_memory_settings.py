"""On two ranks: settings that give time for memory change nothing else, and bfloat16 runs sum in float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ranks import run_ranks
from trainer.learner import zero
from trainer.learner.offload import OffloadedActivations
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

COMMON = """
import json
import sys
from pathlib import Path
import torch
from trainer.learner import distributed, zero
from trainer.learner.learner import Learner
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.rows import AnswerTokens, Row
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

torch.set_num_threads(1)
distributed.join(90.0)

def learner_of(rank, batch, zero_settings):
    torch.manual_seed(0)
    learner = Learner(Path(sys.argv[1]), OptimiserConfig(), ZeroConfig(persistence_threshold=0, **zero_settings),
                      BatchConfig(**batch), LoraConfig(rank=rank))
    learner.start()
    return learner

def rows_of(learner, n):
    ids = learner.processor.answer_ids("siren <0.40>" if distributed.rank() else "none")
    return [Row(ids, torch.zeros(0, 64), [AnswerTokens(ids, supervised=True)])] * n
"""

OPTIONS = (
    COMMON
    + """
from contextlib import contextmanager
from trainer.learner import offload

saved = {}

class Counting(torch.autograd.graph.saved_tensors_hooks):
    def __init__(self):
        def pack(tensor):
            saved["bytes"] = saved.get("bytes", 0) + tensor.numel() * tensor.element_size()
            return tensor
        super().__init__(pack, lambda tensor: tensor)

class Remembering(offload.OffloadedActivations):
    def __exit__(self, *error):
        saved["moved"], saved["weights"] = self.moved_bytes, self.weight_bytes
        return super().__exit__(*error)

import trainer.learner.learner as module
module.OffloadedActivations = Remembering

def trained(rank, batch, zero_settings):
    learner = learner_of(rank, batch, zero_settings)
    calls = []
    for layer in learner._policy.text_model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    saved.clear()
    def loss(logprobs, entropies, micro):
        return cross_entropy_sum(logprobs, micro.weights), {"loss": logprobs.sum()}
    with Counting():
        updates = [learner.update(rows_of(learner, 3), loss, 1.0, 1e-2) for _ in range(2)]
    report = [[u.grad_norm, distributed.total(u.numbers["loss"])] for u in updates]
    optimiser = learner.engine.optimizer
    found = {"mlp_calls": len(calls), "report": report, "saved": dict(saved),
             "optimiser": zero.optimiser_bytes(learner.engine),
             "offloads": [optimiser.offload_optimizer, optimiser.offload_param]}
    return found, dict(zero.stream_weights(learner.engine))

OPTIONS = {
    "plain": ({}, {}),
    "checkpointing": ({"gradient_checkpointing": True}, {}),
    "activations": ({"offload_activations": True}, {}),
    "both": ({"gradient_checkpointing": True, "offload_activations": True}, {}),
    "optimiser": ({}, {"offload_optimiser": True}),
    "weights": ({}, {"extra": {"zero_optimization": {"offload_param": {"device": "cpu"}}}}),
}
results = {}
for rank, names in ((0, list(OPTIONS)), (2, ["plain", "activations"])):
    for name in names:
        settings = OPTIONS[name]
        found, weights = trained(rank, *settings)
        if name == "plain":
            plain = weights
        found["apart"] = max(float((weights[key] - plain[key]).abs().max()) for key in plain if plain[key] is not None
                             ) if distributed.rank() == 0 else 0.0
        results[f"{name} {rank}"] = found
print(json.dumps(results), flush=True)
"""
)


@pytest.mark.slow
def test_every_memory_option_gives_the_same_weights_and_saves_what_it_says(tiny_checkpoint: Path) -> None:
    for results in (json.loads(text.splitlines()[-1]) for text in run_ranks(OPTIONS, tiny_checkpoint)):
        plain, checkpointing, both = (results[f"{name} 0"] for name in ("plain", "checkpointing", "both"))
        # One layer less than there are is computed again, in each of two steps.
        assert checkpointing["mlp_calls"] == both["mlp_calls"] == plain["mlp_calls"] + 2
        assert checkpointing["saved"]["bytes"] < 0.8 * plain["saved"]["bytes"]
        assert 0 < both["saved"]["moved"] < 0.8 * results["activations 0"]["saved"]["moved"]
        for found in (checkpointing, both):
            assert found["report"] == plain["report"] and found["apart"] == 0.0
        for rank in (0, 2):
            plain, activations = results[f"plain {rank}"], results[f"activations {rank}"]
            assert activations["report"] == plain["report"] and activations["apart"] == 0.0
            assert activations["mlp_calls"] == plain["mlp_calls"]
            # Without the weights, which alone are more.
            assert activations["saved"]["weights"] > activations["saved"]["moved"] > 0
        for name in ("optimiser", "weights"):
            found, plain = results[f"{name} 0"], results["plain 0"]
            assert found["offloads"] == [name == "optimiser", name == "weights"]
            for got, wanted in zip(found["report"], plain["report"], strict=True):
                assert got == pytest.approx(wanted, rel=1e-5)
            assert found["apart"] < 1e-4
        assert results["optimiser 0"]["optimiser"] == results["plain 0"]["optimiser"] > 0


SUMS = (
    COMMON
    + """
from deepspeed.utils import safe_get_full_grad

step, gradients = zero.step, {}

def keeping(engine):
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            gradients[name] = safe_get_full_grad(parameter).double().flatten()
    return step(engine)

zero.step = keeping

def gradient(tokens, **zero_settings):
    learner = learner_of(0, {"micro_batch_tokens": tokens}, zero_settings)
    rows = rows_of(learner, 120)
    learner.update(rows, lambda p, _, m: (cross_entropy_sum(p, m.weights) / 100, {}), 1.0, 0.0)
    return torch.cat(list(gradients.values()))

def apart(a, b):
    return float((a - b).norm() / b.norm())

narrow = {"communication_data_type": "bf16", "data_types": {"grad_accum_dtype": "bf16"}}
exact = gradient(100_000, dtype="float32")
one, many = gradient(100_000, dtype="bfloat16"), gradient(10, dtype="bfloat16")
print(json.dumps({"one": apart(one, exact), "many": apart(many, exact), "between": apart(many, one),
                  "narrow": apart(gradient(10, dtype="bfloat16", extra=narrow), exact)}), flush=True)
"""
)


@pytest.mark.slow
def test_many_micro_batches_in_bfloat16_give_the_gradient_of_one(tiny_checkpoint: Path) -> None:
    for text in run_ranks(SUMS, tiny_checkpoint):
        errors = json.loads(text.splitlines()[-1])
        assert errors["many"] < 1.5 * errors["one"], errors
        assert errors["many"] < 0.5 * errors["narrow"], errors  # what sums in bfloat16 would give


def test_weights_stay_where_they_are_whatever_view_of_them_is_saved() -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
    x = torch.randn(4, 8, requires_grad=True)
    hooks = OffloadedActivations([*first.parameters(), *second.parameters()], pin_memory=False)
    with hooks:
        found = (second(first(x).tanh()) ** 2).sum()
    gradients = torch.autograd.grad(found, [x, first.weight, first.bias, second.weight])
    expected = torch.autograd.grad((second(first(x).tanh()) ** 2).sum(), [x, first.weight, first.bias, second.weight])
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    assert hooks.weight_bytes == 2 * 8 * 8 * 4
    assert hooks.moved_bytes % (4 * 8 * 4) == 0 and hooks.moved_bytes >= 3 * 4 * 8 * 4


def test_extra_settings_are_merged_at_every_depth_and_keep_stage_3() -> None:
    extra = {"zero_optimization": {"offload_param": {"device": "cpu"}}, "wall_clock_breakdown": True}
    plain = zero.deepspeed_config(OptimiserConfig(), ZeroConfig(dtype="float32", offload_optimiser=True), torch.float32)
    found = zero.deepspeed_config(
        OptimiserConfig(), ZeroConfig(dtype="float32", offload_optimiser=True, extra=extra), torch.float32
    )
    block = plain["zero_optimization"] | {"offload_param": {"device": "cpu"}}
    assert found == plain | {"zero_optimization": block, "wall_clock_breakdown": True}
    assert block["stage"] == 3 and block["offload_optimizer"] == {"device": "cpu"}
    for wrong in ({"zero_optimization": {"stage": 2}}, {"zero_optimization": {"stage": None}}):
        with pytest.raises(ValueError, match="zero.extra sets zero_optimization.stage to"):
            zero.deepspeed_config(OptimiserConfig(), ZeroConfig(dtype="float32", extra=wrong), torch.float32)
