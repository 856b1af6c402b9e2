"""A stream that brings a part of a fused layer is refused; one that brings layers whole, or none of one, is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

linear = pytest.importorskip("vllm.model_executor.layers.linear")
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding  # noqa: E402
from vllm.model_executor.model_loader import reload  # noqa: E402
from vllm.model_executor.model_loader.reload import (  # noqa: E402
    initialize_layerwise_reload,
    record_metadata_for_reloading,
)

from rollout.whole_layers import require_whole_layers, unsent_layers_expected  # noqa: E402

WIDTH = 64


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Layers as a worker has them between `start_weight_update` and the first tensor."""
    for module in ("layers.linear", "layers.vocab_parallel_embedding", "parameter"):
        monkeypatch.setattr(f"vllm.model_executor.{module}.get_tensor_model_parallel_rank", lambda: 0)
        monkeypatch.setattr(f"vllm.model_executor.{module}.get_tensor_model_parallel_world_size", lambda: 1)
    model = nn.Module()
    model.embed = VocabParallelEmbedding(100, WIDTH)  # has room for 128
    model.qkv = linear.QKVParallelLinear(WIDTH, 32, 2, 2, bias=True)
    model.gate_up = linear.MergedColumnParallelLinear(WIDTH, [96, 96], bias=False)
    model.down = linear.RowParallelLinear(96, WIDTH, bias=False)
    record_metadata_for_reloading(model)
    for layer in model.children():
        layer.quant_method.process_weights_after_loading(layer)
    initialize_layerwise_reload(model)
    return model


def load(layer: nn.Module, name: str, shape: tuple[int, ...], *part: object) -> None:
    parameter = getattr(layer, name)
    parameter.weight_loader(parameter, torch.ones(shape), *part)


def test_all_parts_of_a_layer_and_nothing_of_another_are_well(model):
    require_whole_layers(model)
    load(model.embed, "weight", (100, WIDTH))
    for part in "qkv":
        load(model.qkv, "weight", (WIDTH, WIDTH), part)  # a bias that does not come stays as it is
    for part in (0, 1):
        load(model.gate_up, "weight", (96, WIDTH), part)
    require_whole_layers(model)


@pytest.mark.parametrize(
    ("layer", "shape", "parts", "message"),
    [
        ("qkv", (WIDTH, WIDTH), "qv", r"qkv\.weight got 8,192 of its 12,288 numbers"),
        ("gate_up", (96, WIDTH), (1,), r"gate_up\.weight got 6,144 of its 12,288 numbers"),
    ],
)
def test_a_part_of_a_fused_layer_is_refused_by_its_name(model, layer, shape, parts, message):
    for part in parts:
        load(getattr(model, layer), "weight", shape, part)
    with pytest.raises(RuntimeError, match=message):
        require_whole_layers(model)


def test_a_bias_without_its_weight_is_refused(model):
    for part in "qkv":
        load(model.qkv, "bias", (WIDTH,), part)
    with pytest.raises(RuntimeError, match=r"qkv\.weight got 0 of its 12,288 numbers"):
        require_whole_layers(model)


def test_layers_that_nothing_came_for_are_not_warned_of_at_every_sync(model, caplog):
    """A frozen encoder is never sent; a warning of any other kind still shows."""
    for part in (0, 1):
        load(model.gate_up, "weight", (96, WIDTH), part)
    reload.layerwise.logger.addHandler(caplog.handler)
    config = SimpleNamespace(dtype=torch.float32)
    with unsent_layers_expected():
        reload.finalize_layerwise_reload(model, config)
        reload.layerwise.logger.warning("something else")
    assert {record.getMessage() for record in caplog.records} == {"something else"}
    initialize_layerwise_reload(model)
    reload.finalize_layerwise_reload(model, config)  # vLLM's own words, which the filter must know
    assert any("Failed to load weights" in record.getMessage() for record in caplog.records)
