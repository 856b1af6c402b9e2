"""Every tensor of the published checkpoints, at full size, on the worker's side: vLLM's own loader, traced.

vLLM's classes are made on the meta device in this process, as one process of one or of several that share a model
(with process groups that are named fakes). What its loader copies from where to where is recorded copy by copy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("vllm")
import published_layouts as layouts  # noqa: E402
from published_layouts import Shapes  # noqa: E402
from rollout import vllm_models  # noqa: E402
from rollout.settings import ADAPTERS_KEY  # noqa: E402

RANK = 8
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
UNUSED = (".visual.",)  # the worker is told that there are no pictures


class FakeGroup(SimpleNamespace):
    """A process group's numbers without processes: whoever wants to communicate over it fails."""


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """vLLM's configuration sets environment variables; other tests must not see them."""
    before = dict(os.environ)
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "TORCHDYNAMO_DISABLE": "1"}
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module", params=layouts.NAMES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Shapes]:
    folder = tmp_path_factory.mktemp("published")
    return request.param, folder, layouts.write_folder(request.param, folder)


def made(
    monkeypatch: pytest.MonkeyPatch, name: str, folder: Path, rank: int = 0, size: int = 1, adapters: bool = False
) -> nn.Module:
    """The worker's model on the meta device, as process `rank` of `size`."""
    from vllm import ModelRegistry
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    architecture = layouts.family(name).vllm_architecture
    # The class itself: by its name alone, vLLM would start a process to look at it.
    ModelRegistry.register_model(architecture, getattr(vllm_models, architecture))
    alone = FakeGroup(rank_in_group=0, world_size=1, is_first_rank=True, is_last_rank=True)
    for group in ("_WORLD", "_PP", "_DP", "_EP", "_PCP", "_DCP"):
        monkeypatch.setattr(parallel_state, group, alone, raising=False)
    monkeypatch.setattr(parallel_state, "_TP", FakeGroup(rank_in_group=rank, world_size=size))
    settings = EngineArgs(
        model=str(folder), skip_tokenizer_init=True, dtype="bfloat16", max_model_len=4096, enforce_eager=True,
        hf_overrides={"architectures": [architecture]}, block_size=32, tensor_parallel_size=size,
        limit_mm_per_prompt={"audio": 1, "image": 0, "video": 0}, kv_cache_memory_bytes=1 << 30,
        additional_config={ADAPTERS_KEY: {"rank": RANK, "targets": list(TARGETS)}} if adapters else {},
    ).create_engine_config()  # fmt: skip
    with set_current_vllm_config(settings), torch.device("meta"), set_default_torch_dtype(torch.bfloat16):
        return initialize_model(vllm_config=settings)


class Copies(TorchDispatchMode):
    """What is copied from published tensors into parameters: name, parameter, and where in each of them."""

    def __init__(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self._names = {tensor.untyped_storage()._cdata: name for name, tensor in tensors.items()}
        self._parameters = {p.untyped_storage()._cdata: name for name, p in model.named_parameters()}
        self.made: list[tuple[str, str, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.copy_.default:
            into, source = args[0], args[1]
            place = self._parameters.get(into.untyped_storage()._cdata)
            name = self._names.get(source.untyped_storage()._cdata)
            assert place and name, f"an unknown copy from {name} into {place}"
            self.made.append((name, place, _part(source), _part(into)))
        return function(*args, **(kwargs or {}))


def _part(tensor: Tensor) -> tuple[int, tuple[int, ...]]:
    return tensor.storage_offset(), tuple(tensor.shape)


def given(model: nn.Module, shapes: Shapes) -> list[tuple[str, str, Any, Any]]:
    """The copies that vLLM's loader makes of tensors of these names and shapes."""
    tensors = {n: torch.empty(s, dtype=torch.bfloat16, device="meta") for n, s in shapes.items()}
    with Copies(model, tensors) as copies:
        model.load_weights(iter(tensors.items()))
    return copies.made


def size(part: tuple[int, tuple[int, ...]]) -> int:
    return torch.Size(part[1]).numel()


def unwritten(model: nn.Module, copies: Iterable[tuple[str, str, Any, Any]]) -> dict[str, tuple[int, int]]:
    """Parameters of which not every element was written once: their elements, and how many were."""
    parts: dict[str, list[Any]] = {}
    for _, place, _, into in copies:
        assert into not in parts.setdefault(place, []), f"{place} is written twice at {into}"
        parts[place].append(into)
    found = {name: (p.numel(), sum(map(size, parts.get(name, [])))) for name, p in model.named_parameters()}
    return {name: counts for name, counts in found.items() if counts[0] != counts[1]}


def trained(name: str, shapes: Shapes) -> Shapes:
    """What a stream of whole weights brings (`tests/trainer/learner/test_published_layouts.py`)."""
    decoder = layouts.family(name).embedding_name.removesuffix("embed_tokens.weight")
    return {n: s for n, s in shapes.items() if n.startswith(decoder) or n == layouts.family(name).head_name}


def test_vllm_takes_every_tensor_once(monkeypatch, checkpoint) -> None:
    name, folder, shapes = checkpoint
    model = made(monkeypatch, name, folder)
    copies = given(model, shapes)
    assert unwritten(model, copies) == {}
    used = {n: s for n, s in shapes.items() if not any(part in n for part in UNUSED)}
    assert sorted(copy[0] for copy in copies) == sorted(used)
    assert all(size(copy[2]) == torch.Size(shapes[copy[0]]).numel() for copy in copies)


def test_the_weight_stream_fills_decoder_and_head_and_nothing_else(monkeypatch, checkpoint) -> None:
    name, folder, shapes = checkpoint
    model, streamed = made(monkeypatch, name, folder), trained(name, shapes)
    copies = given(model, streamed)
    assert sorted(copy[0] for copy in copies) == sorted(streamed)
    left = unwritten(model, copies)
    assert {name for name, (_, written) in left.items() if written} == set()
    assert set(left) == {n for n, _ in model.named_parameters() if not n.startswith("language_model.")}


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_share_a_model_take_every_element_of_it(monkeypatch, checkpoint, processes) -> None:
    """With more processes than key heads several hold the same head: every element goes somewhere, and none misses."""
    name, folder, shapes = checkpoint
    streamed, heads = trained(name, shapes), _key_heads(name)
    found: dict[str, int] = {}
    for rank in range(processes):
        model = made(monkeypatch, name, folder, rank, processes)
        copies = given(model, streamed)
        left = unwritten(model, copies)
        padding = {n for n in left if n.endswith(("embed_tokens.weight", "lm_head.weight"))}
        assert {n for n, (_, written) in left.items() if n.startswith("language_model.")} <= padding
        for tensor, _, source, _ in copies:
            found[tensor] = found.get(tensor, 0) + size(source)
    for tensor, shape in streamed.items():
        whole = torch.Size(shape).numel()
        copies_of_each = 1
        if len(shape) == 1 and not tensor.endswith(".bias"):
            copies_of_each = processes  # a norm is everybody's
        elif "k_proj" in tensor or "v_proj" in tensor:
            copies_of_each = max(1, processes // heads)
        assert found[tensor] == copies_of_each * whole, tensor


def _key_heads(name: str) -> int:
    _, decoder = layouts.family(name).config_parts(layouts.CONFIGS[name])
    return int(decoder["num_key_value_heads"])


def test_a_stream_of_adapters_has_a_place_for_each_of_the_decoders_linear_layers(monkeypatch, checkpoint) -> None:
    name, folder, shapes = checkpoint
    model: Any = made(monkeypatch, name, folder, adapters=True)
    decoder = layouts.family(name).embedding_name.removesuffix("embed_tokens.weight")
    wanted: Shapes = {}
    for tensor, shape in trained(name, shapes).items():
        layer, _, last = tensor.removeprefix(decoder).rpartition(".")
        if last == "weight" and layer.rpartition(".")[2] in TARGETS:
            wanted |= {f"{layer}.lora_A.weight": (RANK, shape[1]), f"{layer}.lora_B.weight": (shape[0], RANK)}
    assert model.adapters.shapes() == wanted
    staged = {n: torch.empty(s, dtype=torch.float32, device="meta") for n, s in wanted.items()}
    model.adapters.stage(staged.items())
    model.adapters.check()
    model.adapters.apply(2.0)
    for odd in (
        dict(list(staged.items())[1:]),
        staged | {"layers.0.mlp.other.lora_A.weight": staged[next(iter(staged))]},
    ):
        model.adapters.stage(odd.items())
        with pytest.raises(RuntimeError, match="is missing|has no place here"):
            model.adapters.check()
        model.adapters.discard()


def test_a_tensor_that_vllm_has_no_place_for_is_refused(monkeypatch, checkpoint) -> None:
    name, folder, shapes = checkpoint
    model, head = made(monkeypatch, name, folder), layouts.family(name).head_name
    with pytest.raises(ValueError, match="other"):
        given(model, {head.replace("lm_head", "other"): shapes[head]})


@pytest.mark.parametrize("said", [None, True])
def test_a_head_is_taken_or_refused_whatever_the_configuration_says(monkeypatch, tmp_path, checkpoint, said) -> None:
    """Published configurations do not say whether it is tied; vLLM's default depends on the family."""
    name, _, shapes = checkpoint
    head = layouts.family(name).head_name
    layouts.write_folder(name, tmp_path)
    monkeypatch.setattr("vllm.config.model.checkpoint_has_lm_head", lambda *a, **k: False)  # as in a stream
    path = tmp_path / "config.json"
    config = layouts.without(json.loads(path.read_text()), "tie_word_embeddings")
    if said:
        for part in (config, *layouts.family(name).config_parts(config)):
            part["tie_word_embeddings"] = True
    path.write_text(json.dumps(config))
    model: Any = made(monkeypatch, name, tmp_path)
    language: Any = model.language_model
    if language.lm_head.weight is language.model.embed_tokens.weight:
        with pytest.raises(ValueError, match=f"{head}.*tie_word_embeddings"):
            given(model, shapes)
    else:
        assert not said and sum(copy[0] == head for copy in given(model, shapes)) == 1
