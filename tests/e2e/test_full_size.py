"""Every tensor of the published checkpoints, at full size: taken once by transformers, by vLLM and by the weight sync.

Names and shapes alone: the models are on the meta device, and the weight files are holes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import full_size
from timepro.astp import AstpLayout
from timepro.families import ModelFamily
from trainer.learner import zero
from trainer.learner.merging import Narrowing
from trainer.learner.policy import Policy
from trainer.settings.lora import LoraConfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
Shapes = dict[str, tuple[int, ...]]
# From the models' published names and sizes, not from the classes: with the timestamps' 768 rows.
KNOWN: dict[str, Shapes] = {
    "Qwen2.5-Omni-7B": {
        "thinker.lm_head.weight": (152832, 3584),
        "thinker.model.layers.27.self_attn.k_proj.bias": (512,),
        "thinker.audio_tower.layers.31.fc1.weight": (5120, 1280),
        "thinker.audio_tower.proj.weight": (3584, 1280),
        "thinker.visual.blocks.31.mlp.gate_proj.weight": (3420, 1280),
    },
    "Qwen2.5-Omni-3B": {
        "thinker.model.embed_tokens.weight": (152704, 2048),
        "thinker.model.layers.35.mlp.down_proj.weight": (2048, 11008),
        "thinker.audio_tower.proj.weight": (2048, 1280),
    },
    "Qwen2-Audio-7B-Instruct": {
        "language_model.lm_head.weight": (156800, 4096),
        "language_model.model.layers.31.mlp.up_proj.weight": (11008, 4096),
        "audio_tower.embed_positions.weight": (1500, 1280),
        "multi_modal_projector.linear.weight": (4096, 1280),
    },
}


def in_vllm(folder: Path, shapes: Shapes) -> dict[str, list[int]]:
    environment = os.environ | {
        "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, full_size.__file__, str(folder)], input=json.dumps(shapes), env=environment, cwd=ROOT,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def policy_of(model: Any, family: ModelFamily, rank: int = 0) -> Policy:
    layout = AstpLayout.from_config(family.text_side_config(model.config))
    return Policy(model, family, layout, LoraConfig(rank=rank) if rank else None)


@pytest.fixture(scope="module", params=list(KNOWN))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("published")
    return request.param, folder, *full_size.write_folder(request.param, folder)


def loaded(folder: Path, family: ModelFamily) -> tuple[Any, dict[str, Any]]:
    return full_size.transformers_class(family).from_pretrained(
        folder, dtype=torch.bfloat16, device_map="meta", output_loading_info=True, local_files_only=True
    )


def test_transformers_takes_every_tensor_once(published) -> None:
    name, folder, family, shapes = published
    assert {key: shapes.get(key) for key in KNOWN[name]} == KNOWN[name]
    model, report = loaded(folder, family)
    assert not any(report.values()), report
    assert len(shapes) == len(list(model.state_dict())), "two parameters share a published name"


def test_the_weight_stream_holds_every_trained_tensor_once(published) -> None:
    _, folder, family, shapes = published
    model, _ = loaded(folder, family)
    encoders = {name for name in shapes if "audio_tower." in name or "visual." in name or "projector." in name}
    streamed = [(s.name, zero.whole_shape(s.parameters[0])) for s in policy_of(model, family).streamed()]
    assert len(streamed) == len(dict(streamed))
    assert dict(streamed) == {name: shape for name, shape in shapes.items() if name not in encoders}
    policy = policy_of(model, family, rank=8)
    published = [(s.name, zero.whole_shape(s.parameters[0])) for s in policy.published(Narrowing())]
    linear = {n: s for n, s in shapes.items() if n not in encoders and ".layers." in n and n.endswith("_proj.weight")}
    assert len(published) == len(dict(published)) and dict(published) == linear
    adapters = [(s.name, zero.whole_shape(s.parameters[0])) for s in policy.streamed()]
    assert len(dict(adapters)) == len(adapters) == 2 * len(linear)
    inside = [(name.rpartition(".layers.")[2], shape) for name, shape in linear.items()]
    wanted = {f"layers.{name.removesuffix('weight')}lora_A.weight": (8, shape[1]) for name, shape in inside}
    wanted |= {f"layers.{name.removesuffix('weight')}lora_B.weight": (shape[0], 8) for name, shape in inside}
    assert dict(adapters) == wanted


def test_vllm_writes_every_element_once(published) -> None:
    _, folder, family, shapes = published
    unused = {name for name in shapes if ".visual." in name}  # the worker is told that there are no pictures
    found = in_vllm(folder, shapes)
    assert {name: counts for name, counts in found.items() if counts[0] != counts[1]} == {}
    assert sum(n for n, _ in found.values()) == sum(torch.Size(s).numel() for n, s in shapes.items() if n not in unused)
