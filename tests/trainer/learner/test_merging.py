"""Adapters of RL's size merged into bfloat16 weights: their change arrives, and what it costs is measured."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.learner.export import export_checkpoint
from trainer.learner.lora import AdaptedLinear
from trainer.learner.merging import Narrowing, merged, rounded_at_random
from trainer.settings.lora import LoraConfig

LORA = LoraConfig(rank=8, alpha=32.0)


def adapted(size: float, dtype: torch.dtype = torch.bfloat16) -> AdaptedLinear:
    """A layer of a published model's scale whose B has moved by `size`, as after 255 steps at 1e-6."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(768, 512, bias=False)
    with torch.no_grad():
        linear.weight.copy_(0.02 * torch.randn(512, 768, generator=generator))
    layer = AdaptedLinear(linear.to(torch.bfloat16).to(dtype), LORA)
    with torch.no_grad():
        layer.lora_A.weight.copy_((torch.rand(8, 768, generator=generator) * 2 - 1) / math.sqrt(768))
        layer.lora_B.weight.copy_(size * torch.randn(512, 8, generator=generator).sign())
    return layer


@pytest.mark.parametrize("size", [1.2e-5, 1.7e-4])
def test_a_merge_into_bfloat16_keeps_the_change_and_measures_it(size):
    layer, narrowing = adapted(size), Narrowing()
    found = merged(layer, "w", narrowing).merge()
    assert found.dtype == torch.bfloat16
    base, change = layer.weight.detach().float(), (4.0 * layer.lora_B.weight @ layer.lora_A.weight).detach()
    share = float(((found.float() - base) * change).sum() / change.square().sum())
    report = narrowing.report()
    assert report is not None and report.share == pytest.approx(share, abs=1e-3) and report.least_name == "w"
    assert share == pytest.approx(1.0, abs=0.1)
    rounding = (layer.weight.float() + 1e-3 * torch.rand(512, 768)).detach()
    stored = float((rounding.bfloat16() - rounding).norm() / rounding.norm())
    assert 0 < report.noise < (0.5 if size < 1e-4 else 1.5) * stored  # in terms of what storing in bfloat16 costs
    nearest = (base + change).bfloat16().float() - base  # as weights are merged elsewhere
    assert float((nearest * change).sum() / change.square().sum()) < (0.1 if size < 1e-4 else 0.9)
    x = torch.randn(64, 768, generator=torch.Generator().manual_seed(1))
    moved, wanted = x @ (found.float() - base).t(), x @ change.t()
    assert float((moved * wanted).sum() / wanted.square().sum()) == pytest.approx(1.0, abs=0.2)
    assert torch.equal(merged(layer, "w", Narrowing()).merge(), found)


def test_a_weight_that_did_not_change_stays_bit_by_bit():
    narrowing = Narrowing()
    assert torch.equal(merged(adapted(0.0), "w", narrowing).merge(), adapted(0.0).weight)
    assert narrowing.report() is None


def test_rounding_at_random_has_the_exact_mean_and_only_the_two_neighbours():
    exact = torch.full((200_000,), 1.0 + 2.0**-7 * 0.3)
    found = rounded_at_random(exact, 0).float()
    assert set(found.unique().tolist()) == {1.0, 1.0 + 2.0**-7}
    assert float(found.mean()) == pytest.approx(float(exact[0]), abs=2e-5)
    negative = rounded_at_random(-exact, 0).float()
    assert float(negative.mean()) == pytest.approx(-float(exact[0]), abs=2e-5)


def test_training_in_float32_of_a_bfloat16_checkpoint_exports_its_change_too(tmp_path):
    layer, narrowing = adapted(1.2e-5, torch.float32), Narrowing()
    source = tmp_path / "source"
    source.mkdir()
    save_file({"w": layer.weight.detach().bfloat16()}, source / "model.safetensors")
    exact = merged(layer, "w", narrowing).merge()
    assert exact.dtype == torch.float32 and narrowing.report() is None
    export_checkpoint(source, tmp_path / "out", {"w": exact}, narrowing)
    report = narrowing.report()
    assert report is not None and report.share == pytest.approx(1.0, abs=0.1)
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].dtype == torch.bfloat16
