"""Adapters in vLLM's fused and sharded layers: the whole layers' arithmetic, whatever a process holds of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

linear = pytest.importorskip("vllm.model_executor.layers.linear")
from rollout.adapters import Adapters  # noqa: E402

HIDDEN, HEADS, KEY_HEADS, HEAD, INNER, RANK, SCALE = 24, 4, 2, 6, 20, 3, 2.0
OUTPUTS = {
    "q_proj": HEADS * HEAD, "k_proj": KEY_HEADS * HEAD, "v_proj": KEY_HEADS * HEAD, "o_proj": HIDDEN,
    "gate_proj": INNER, "up_proj": INNER, "down_proj": HIDDEN,
}  # fmt: skip
INPUTS = dict.fromkeys(OUTPUTS, HIDDEN) | {"o_proj": HEADS * HEAD, "down_proj": INNER}
GROUPS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def decoder(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> nn.Module:
    """The linear layers of a decoder's layer, as process `rank` of `size` has them."""
    for module in ("vllm.model_executor.layers.linear", "vllm.model_executor.parameter"):
        monkeypatch.setattr(f"{module}.get_tensor_model_parallel_rank", lambda: rank)
        monkeypatch.setattr(f"{module}.get_tensor_model_parallel_world_size", lambda: size)
    layer = nn.Module()
    layer.qkv_proj = linear.QKVParallelLinear(HIDDEN, HEAD, HEADS, KEY_HEADS, bias=True)
    layer.o_proj = linear.RowParallelLinear(HEADS * HEAD, HIDDEN, bias=False)
    layer.gate_up_proj = linear.MergedColumnParallelLinear(HIDDEN, [INNER, INNER], bias=False)
    layer.down_proj = linear.RowParallelLinear(INNER, HIDDEN, bias=False)
    model = nn.Module()
    model.layers = nn.ModuleList([layer])
    for parameter in model.parameters():
        parameter.data.zero_()  # what is left is the adapters' part
    return model


def prepared(model: nn.Module, targets: list[str]) -> Adapters:
    """Its adapters, and its layers as vLLM leaves them once they are loaded."""
    adapters = Adapters(model, RANK, targets)
    for layer in model.layers[0].children():
        layer.quant_method.process_weights_after_loading(layer)
    return adapters


def stream(targets: list[str]) -> dict[str, torch.Tensor]:
    generator, found = torch.Generator().manual_seed(0), {}
    for target in targets:
        found[f"layers.0.{target}.lora_A.weight"] = torch.randn(RANK, INPUTS[target], generator=generator)
        found[f"layers.0.{target}.lora_B.weight"] = torch.randn(OUTPUTS[target], RANK, generator=generator)
    return found


def change(tensors: dict[str, torch.Tensor], target: str) -> torch.Tensor:
    """The change of a published layer's weight."""
    a, b = (tensors.get(f"layers.0.{target}.lora_{part}.weight") for part in "AB")
    return SCALE * b @ a if a is not None and b is not None else torch.zeros(OUTPUTS[target], INPUTS[target])


@pytest.mark.parametrize("targets", [list(OUTPUTS), ["q_proj", "v_proj"], ["k_proj", "up_proj", "down_proj"]])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_process_adds_its_part_of_the_adapters(monkeypatch, targets, size):
    """With four processes and two key heads, two processes share a head."""
    tensors = stream(targets)
    x = {width: torch.randn(5, width, generator=torch.Generator().manual_seed(1)) for width in set(INPUTS.values())}
    parts: dict[str, list[torch.Tensor]] = {}
    for rank in range(size):
        model = decoder(monkeypatch, rank, size)
        adapters = prepared(model, targets)
        adapters.stage(tensors.items())
        adapters.check()
        adapters.apply(SCALE)
        layer = model.layers[0]
        for name in ("qkv_proj", "gate_up_proj", "o_proj", "down_proj"):
            own = getattr(layer, name)
            given = x[own.input_size]
            if name in ("o_proj", "down_proj"):
                given = given.chunk(size, dim=1)[rank]
            parts.setdefault(name, []).append(own.quant_method.apply(own, given, None))
    for name in ("o_proj", "down_proj"):
        torch.testing.assert_close(sum(parts[name]), x[INPUTS[name]] @ change(tensors, name).t(), rtol=0, atol=1e-4)
    for name, fused in GROUPS.items():
        for rank, found in enumerate(parts[name]):
            copies = max(1, size // KEY_HEADS)
            wanted = []
            for target in fused:
                shared = copies if target in ("k_proj", "v_proj") else 1
                whole = x[HIDDEN] @ change(tensors, target).t()
                wanted.append(whole.chunk(size // shared, dim=1)[rank // shared])
            torch.testing.assert_close(found, torch.cat(wanted, dim=1), rtol=0, atol=1e-4)


def test_the_layers_go_on_as_they_were_until_all_adapters_are_there(monkeypatch):
    model = decoder(monkeypatch, 0, 1)
    adapters = prepared(model, ["q_proj", "v_proj"])
    x = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))
    layer = model.layers[0].qkv_proj
    assert not layer.quant_method.apply(layer, x, None).any()
    tensors = stream(["q_proj", "v_proj"])
    name = "layers.0.v_proj.lora_B.weight"
    adapters.stage((key, tensor) for key, tensor in tensors.items() if key != name)
    with pytest.raises(RuntimeError, match=rf"not this worker's: {name} is missing \(1 in all\)"):
        adapters.check()
    assert not layer.quant_method.apply(layer, x, None).any()
    adapters.discard()
    for wrong, message in (
        ({"layers.0.o_proj.lora_A.weight": tensors[name]}, "layers.0.o_proj.lora_A.weight has no place here"),
        ({name: tensors[name][:2]}, rf"{name} is \(2, 3\), not \(12, 3\)"),
    ):
        adapters.stage((tensors | wrong).items())
        with pytest.raises(RuntimeError, match=message):
            adapters.check()
        adapters.discard()
    adapters.stage(tensors.items())
    adapters.check()
    adapters.apply(SCALE)
    assert layer.quant_method.apply(layer, x, None).any()


def test_a_target_that_the_decoder_does_not_have_and_a_quantised_layer_are_refused(monkeypatch):
    model = decoder(monkeypatch, 0, 1)
    with pytest.raises(ValueError, match=r"lora\.targets: this worker's decoder has no layers named w_proj"):
        Adapters(model, RANK, ["q_proj", "w_proj"])
    model.layers[0].o_proj.quant_method = object()
    with pytest.raises(ValueError, match="layers.0.o_proj is quantised"):
        Adapters(model, RANK, ["o_proj"])
