"""Whole streams and deltas into layers of vLLM, by the receiver that an engine has: what they compute with afterwards.

The layers are vLLM's, fused and tied, as a CPU packs them; engine and HTTP server around them are stand-ins. Real
engines: `tests/e2e`.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

linear = pytest.importorskip("vllm.model_executor.layers.linear")
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding  # noqa: E402
from vllm.model_executor.model_loader.reload import record_metadata_for_reloading  # noqa: E402

from rollout.kept_weights import KeptLinearMethod  # noqa: E402
from rollout.places import NoPlaces, Places  # noqa: E402
from rollout.receiver import GroupInfo, TorchDistReceiver  # noqa: E402
from trainer.learner.sender import SyncError  # noqa: E402

from .stand_in_workers import Policy, StandInWorker  # noqa: E402

WIDTH, WORDS, INNER = 64, 100, 96
SHARDS = {"q": ("qkv", "q"), "k": ("qkv", "k"), "v": ("qkv", "v"), "gate": ("gate_up", 0), "up": ("gate_up", 1)}
SHAPES = {
    "embed.weight": (WORDS, WIDTH), "q.weight": (WIDTH, WIDTH), "k.weight": (32, WIDTH), "v.weight": (32, WIDTH),
    "q.bias": (WIDTH,), "k.bias": (32,), "v.bias": (32,), "gate.weight": (INNER, WIDTH), "up.weight": (INNER, WIDTH),
    "down.weight": (WIDTH, INNER), "norm.weight": (WIDTH,),
}  # fmt: skip


class Decoder(nn.Module):
    """Fused, tied and plain layers, loaded as vLLM's models load theirs."""

    def __init__(self, kept: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.embed = VocabParallelEmbedding(WORDS, WIDTH, params_dtype=dtype)  # has room for 128
        self.qkv = linear.QKVParallelLinear(WIDTH, 32, 2, 1, bias=True, params_dtype=dtype)
        self.gate_up = linear.MergedColumnParallelLinear(WIDTH, [INNER, INNER], bias=False, params_dtype=dtype)
        self.down = linear.RowParallelLinear(INNER, WIDTH, bias=False, params_dtype=dtype)
        self.norm = nn.LayerNorm(WIDTH, bias=False, dtype=dtype)
        self.head = ParallelLMHead(WORDS, WIDTH, params_dtype=dtype).tie_weights(self.embed)
        for parameter in self.parameters():
            parameter.data.zero_()
        self.requires_grad_(False)
        record_metadata_for_reloading(self)
        for layer in (self.embed, self.qkv, self.gate_up, self.down, self.head):
            if kept and isinstance(layer, linear.LinearBase):
                layer.quant_method = KeptLinearMethod()
            layer.quant_method.process_weights_after_loading(layer)

    def load_weights(self, weights):
        for name, tensor in weights:
            layer, kind = name.split(".")
            layer, *shard = SHARDS.get(layer, (layer,))
            parameter = getattr(getattr(self, layer), kind)
            load = getattr(parameter, "weight_loader", lambda parameter, tensor: parameter.data.copy_(tensor))
            load(parameter, tensor, *shard)

    def computes(self, x: torch.Tensor, inner: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the layers make of inputs, by the parts that a published model has."""
        run = lambda layer, x: layer.quant_method.apply(layer, x, getattr(layer, "bias", None))  # noqa: E731
        q, k, v = run(self.qkv, x).split([WIDTH, 32, 32], dim=-1)
        gate, up = run(self.gate_up, x).split(INNER, dim=-1)
        head = run(self.head, x)[:, :WORDS]
        looked_up = self.embed.quant_method.embedding(self.embed, torch.arange(WORDS))
        found = {"q": q, "k": k, "v": v, "gate": gate, "up": up, "down": run(self.down, inner), "head": head}
        return found | {"embed": looked_up, "norm": self.norm.weight.data}


class VllmWorker(StandInWorker):
    """A stand-in's server before the real receiver and real layers."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.labels: list[str] = []
        parallel = SimpleNamespace(data_parallel_index=0, world_size=1, rank=0)
        config = SimpleNamespace(parallel_config=parallel, model_config=SimpleNamespace(dtype=dtype))
        self.receiver = TorchDistReceiver(None, config, torch.device("cpu"), model)
        super().__init__()

    def answer(self, path, body):
        match body.get("method", path.strip("/")):
            case "timepro_state":
                return {"results": [self.receiver.state]}
            case "timepro_abort_update":
                self.receiver.restore()
                self.receiver.shutdown()
                return {"results": [self.receiver.torn]}
            case "timepro/update":
                self.receiver.start_weight_update()
            case "timepro/finish":
                self.receiver.finish_weight_update()
            case "update_weight_version":
                self.labels.append(body["new_version"])
        return super().answer(path, body)

    def _join(self, info):
        self.receiver.init_transfer_engine(GroupInfo(**info))

    def _receive(self, update):
        self.receiver.update_weights(update)

    def last_update(self):
        return self.receiver.last_update

    def _leave(self):
        self.receiver.shutdown()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    """Makes a model as process `rank` of `size` has it."""

    def _make(kept=True, dtype=torch.float32, rank=0, size=1):
        for module in ("layers.linear", "layers.vocab_parallel_embedding", "parameter"):
            monkeypatch.setattr(f"vllm.model_executor.{module}.get_tensor_model_parallel_rank", lambda: rank)
            monkeypatch.setattr(f"vllm.model_executor.{module}.get_tensor_model_parallel_world_size", lambda: size)
        return Decoder(kept, dtype)

    return _make


@pytest.fixture
def workers(request, make):
    dtype = getattr(request, "param", torch.float32)
    started = [VllmWorker(make(dtype=dtype), dtype) for _ in range(2)]
    yield started
    for worker in started:
        worker.close()


class DecoderPolicy(Policy):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.tensors = {n: nn.Parameter(torch.randn(s, generator=draw).to(dtype)) for n, s in SHAPES.items()}

    def train(self, share: float, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        for tensor in self.tensors.values():
            tensor.data[torch.rand(tensor.shape, generator=draw) < share] *= 1.5


def computes_as(model: Decoder, policy: DecoderPolicy) -> bool:
    """The layers compute with the policy's weights: to a rounding, and with the very bits where they lie plain."""
    published, draw = {n: t.data for n, t in policy.tensors.items()}, torch.Generator().manual_seed(1)
    dtype = published["q.weight"].dtype
    x, inner = (torch.randn(5, n, generator=draw).to(dtype) for n in (WIDTH, INNER))
    found, close = model.computes(x, inner), 2e-2 if dtype == torch.bfloat16 else 1e-4
    for part in ("q", "k", "v", "gate", "up", "down"):
        bias = published.get(f"{part}.bias")
        wanted = nn.functional.linear(inner if part == "down" else x, published[f"{part}.weight"], bias)
        torch.testing.assert_close(found[part], wanted, atol=close * 10, rtol=close)
    torch.testing.assert_close(found["head"], x @ published["embed.weight"].t(), atol=close * 10, rtol=close)
    return torch.equal(found["embed"], published["embed.weight"]) and torch.equal(
        found["norm"], published["norm.weight"]
    )


@pytest.mark.parametrize("workers", [torch.float32, torch.bfloat16], indirect=True, ids=["float32", "bfloat16"])
def test_layers_compute_with_whole_weights_and_with_what_deltas_change(send, workers):
    policy = DecoderPolicy(workers[0].receiver.model_config.dtype)
    one, _ = send(policy=policy, mode="delta", retries=0)
    assert one.deliver(1).mode == "dense"
    assert all(computes_as(worker.receiver.model, policy) for worker in workers)
    for version in (2, 3):
        policy.train(0.05, version)
        assert one.deliver(version).mode == "delta"
        assert all(computes_as(worker.receiver.model, policy) for worker in workers)
    policy.train(1.0)
    assert one.deliver(4).mode == "dense"  # into the same places, without vLLM's layer-by-layer loading
    assert all(computes_as(worker.receiver.model, policy) for worker in workers)
    assert [worker.version for worker in workers] == ["4", "4"]


def test_a_delta_that_one_worker_cannot_confirm_is_undone_and_whole_weights_follow(send, workers):
    policy = DecoderPolicy(torch.float32)
    one, _ = send(policy=policy, mode="delta", retries=0)
    one.deliver(1)
    old = DecoderPolicy(torch.float32)
    policy.train(0.05)
    workers[1].receiver.model.down.weight.data.view(torch.int32)[3, 4] ^= 1  # a bit in memory that the delta leaves
    policy.tensors["down.weight"].data.copy_(old.tensors["down.weight"].data)
    one.connect()
    with pytest.raises(SyncError, match="checksum mismatch over all weights after delta 2"):
        one.send(2)
    assert computes_as(workers[0].receiver.model, old)
    assert [worker.labels for worker in workers] == [[], []]  # of one version both, as before
    assert one.deliver(2).mode == "dense"
    assert all(computes_as(worker.receiver.model, policy) for worker in workers)


def test_answers_of_a_worker_that_got_half_of_the_weights_are_of_no_version(send, workers):
    policy = DecoderPolicy(torch.float32)
    one, _ = send(policy=policy, mode="dense", retries=0, bucket_mib=0.001, timeout_s=4.0)
    one.deliver(1)
    policy.train(1.0)
    add, count = workers[1].receiver._places.load, []

    def breaks(tensors):
        count.append(1)
        if len(count) > 2:
            raise RuntimeError("the disk is full")
        add(tensors)

    workers[1].receiver._places.load = breaks
    one.connect()
    with pytest.raises(SyncError):
        one.send(2)
    assert workers[1].labels == ["-2"]
    workers[1].receiver._places.load = add
    one.deliver(2)
    assert all(computes_as(worker.receiver.model, policy) for worker in workers)


def test_a_stream_without_places_does_not_keep_the_next_one_from_its_own(send, workers):
    """One of another type, as a learner with other settings sends it to the same workers."""
    one, _ = send(policy=DecoderPolicy(torch.bfloat16), mode="delta", retries=0)
    assert [one.deliver(version).mode for version in (1, 2)] == ["dense", "dense"]
    one.close()
    policy = DecoderPolicy(torch.float32)
    other, _ = send(policy=policy, mode="delta", retries=0)
    assert other.deliver(3).mode == "dense"
    policy.train(0.05)
    assert other.deliver(4).mode == "delta"
    assert all(computes_as(worker.receiver.model, policy) for worker in workers)


def places_of(model, shapes=SHAPES, dtype=torch.float32):
    return Places(model, list(shapes), list(shapes.values()), [dtype] * len(shapes))


@pytest.mark.parametrize(
    ("settings", "drop", "dtype", "reason"),
    [
        ({"kept": False}, (), torch.float32, "vLLM's loaders do not take them as they lie"),
        ({"size": 2}, (), torch.float32, "is cut on its way"),
        ({}, (), torch.bfloat16, "comes as torch.bfloat16 and is kept as torch.float32"),
        ({}, ("k.weight",), torch.float32, "holds a part of QKVParallelLinear.weight alone"),
    ],
    ids=["packed", "tensor parallel", "another type", "a part of a fused layer"],
)
def test_models_without_a_place_for_every_tensor_say_why(make, settings, drop, dtype, reason):
    model = make(**settings)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(NoPlaces, match=reason):
        places_of(model, {n: s for n, s in SHAPES.items() if n not in drop}, dtype)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_looking_for_places_changes_nothing_and_notices_when_they_move(make):
    model = make()
    for parameter in model.parameters():
        parameter.data.normal_()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    places = places_of(model)
    del before["embed.weight"]  # its padding is zeroed, as at every loading
    assert all(torch.equal(dict(model.named_parameters())[name], tensor) for name, tensor in before.items())
    assert places.holds(list(SHAPES)) and not places.holds(list(SHAPES)[:-1])
    model.down.weight = nn.Parameter(model.down.weight.data.clone(), requires_grad=False)
    assert not places.holds(list(SHAPES))
