"""Every tensor of the published checkpoints, at full size, on the learner's side: taken once, streamed once.

Names and shapes alone: the models are on the meta device, and the weight files are holes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

import published_layouts as layouts
from published_layouts import Shapes
from timepro.astp import AstpLayout
from trainer.learner import zero
from trainer.learner.lora import Streamed
from trainer.learner.merging import Narrowing
from trainer.learner.policy import Policy
from trainer.settings.lora import LoraConfig

ENCODERS = ("audio_tower.", "visual.", "multi_modal_projector.")


@pytest.mark.parametrize("name", layouts.NAMES)
def test_the_layout_has_as_many_numbers_as_the_hub_counts(name: str) -> None:
    total = layouts.numbers(layouts.published(name))
    if name in layouts.TALKERS:
        total += layouts.numbers(layouts.talker(name)) + _vocoder()
    assert total == layouts.PARAMETERS[name]


def _vocoder() -> int:
    """Numbers in Qwen2.5-Omni's `token2wav.*`, by the class's own defaults: both sizes have the same.

    The published files also hold the rotary embedding's frequencies, which the class computes.
    """
    from transformers import Qwen2_5OmniToken2WavConfig, Qwen2_5OmniToken2WavModel

    with torch.device("meta"):
        model = Qwen2_5OmniToken2WavModel(Qwen2_5OmniToken2WavConfig())
    return sum(parameter.numel() for parameter in model.parameters()) + model.config.dit_config.head_dim // 2


@pytest.mark.parametrize("name", layouts.NAMES)
def test_init_model_keeps_each_tensor_under_a_name_of_its_own_and_no_speech(name: str) -> None:
    family, shapes = layouts.family(name), layouts.published(name)
    kept = [family.kept_name(tensor) for tensor in shapes]
    assert kept == list(shapes)
    speech = list(layouts.talker(name)) if name in layouts.TALKERS else []
    assert {family.kept_name(tensor) for tensor in speech} <= {None}


@pytest.fixture(scope="module", params=layouts.NAMES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Shapes]:
    folder = tmp_path_factory.mktemp("published")
    return request.param, folder, layouts.write_folder(request.param, folder)


def loaded(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    return (
        layouts.family(name)
        .model_class()
        .from_pretrained(
            folder, dtype=torch.bfloat16, device_map="meta", output_loading_info=True, local_files_only=True
        )
    )


def test_transformers_takes_every_tensor_once(checkpoint: tuple[str, Path, Shapes]) -> None:
    name, folder, shapes = checkpoint
    model, report = loaded(name, folder)
    assert not any(report.values()), report
    own = [(layouts.family(name).checkpoint_name(key), tuple(t.shape)) for key, t in model.state_dict().items()]
    assert len(own) == len(dict(own)) and dict(own) == shapes
    # The head is not the embeddings under another name: each has a tensor of its own.
    assert len({id(parameter) for parameter in model.parameters()}) == len(shapes)


def test_the_weight_stream_brings_every_trained_tensor_once(checkpoint: tuple[str, Path, Shapes]) -> None:
    name, folder, shapes = checkpoint
    trained = {tensor: shape for tensor, shape in shapes.items() if not any(part in tensor for part in ENCODERS)}
    assert once(policy(name, folder).streamed()) == trained


def test_adapters_and_what_they_are_merged_into_are_the_decoders_linear_layers(
    checkpoint: tuple[str, Path, Shapes],
) -> None:
    name, folder, shapes = checkpoint
    own, prefix = policy(name, folder, rank=8), layouts.family(name).embedding_name.removesuffix("embed_tokens.weight")
    linear = {n: s for n, s in shapes.items() if n.startswith(prefix) and n.endswith("_proj.weight")}
    assert once(own.published(Narrowing())) == linear
    wanted: Shapes = {}
    for tensor, (outputs, inputs) in linear.items():
        layer = tensor.removeprefix(prefix).removesuffix("weight")
        wanted |= {f"{layer}lora_A.weight": (8, inputs), f"{layer}lora_B.weight": (outputs, 8)}
    assert once(own.streamed()) == wanted


def policy(name: str, folder: Path, rank: int = 0) -> Policy:
    own = layouts.family(name)
    config = own.load_config(folder)
    with torch.device("meta"):
        model = own.model_class()(config).to(torch.bfloat16)
    layout = AstpLayout.from_config(own.text_side_config(model.config))
    return Policy(model, own, layout, LoraConfig(rank=rank) if rank else None)


def once(tensors: Iterable[Streamed]) -> Shapes:
    """Names and shapes; no name twice."""
    found = [(tensor.name, zero.whole_shape(tensor.parameters[0])) for tensor in tensors]
    assert len(found) == len(dict(found))
    return dict(found)
