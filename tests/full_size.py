"""The published checkpoints' architectures at their full size, on the meta device: names and shapes without weights.

Run as a program it builds vLLM's classes, gives them every tensor, and prints what was written where:
`python tests/full_size.py FOLDER < shapes.json`.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timepro.astp import CONFIG_KEY, AstpLayout
from timepro.families import ModelFamily, family_of

TIMESTAMP_ROWS = 768  # 750 timestamps, padded
ENCODER = dict(
    num_mel_bins=128, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, d_model=1280,
    max_source_positions=1500,
)  # fmt: skip


def omni(hidden: int, layers: int, heads: int, key_value_heads: int, feed_forward: int, rows: int) -> Any:
    """Qwen2.5-Omni's configuration, talker left out."""
    from transformers import Qwen2_5OmniConfig

    first, last = rows, rows + 750
    thinker = dict(
        audio_config=ENCODER | dict(n_window=100, output_dim=hidden),
        vision_config=dict(
            depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=hidden,
            fullatt_block_indexes=[7, 15, 23, 31], patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
            window_size=112,
        ),
        text_config=dict(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=key_value_heads, intermediate_size=feed_forward, vocab_size=rows + TIMESTAMP_ROWS,
            max_position_embeddings=32768, tie_word_embeddings=False,
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]),
        ),
        tie_word_embeddings=False,
    )  # fmt: skip
    thinker[CONFIG_KEY] = AstpLayout(first_token_id=first, banned_token_ids=tuple(range(first, last))).to_config()
    return Qwen2_5OmniConfig(
        thinker_config=thinker, enable_audio_output=False, architectures=["Qwen2_5OmniModel"], dtype="bfloat16"
    )


def qwen2_audio() -> Any:
    from transformers import Qwen2AudioConfig

    text = dict(
        model_type="qwen2", hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
        intermediate_size=11008, vocab_size=156032 + TIMESTAMP_ROWS, max_position_embeddings=8192,
    )  # fmt: skip
    layout = {CONFIG_KEY: AstpLayout(first_token_id=156032).to_config()}
    return Qwen2AudioConfig(
        audio_config=ENCODER, text_config=text, tie_word_embeddings=False, dtype="bfloat16",
        architectures=["Qwen2AudioForConditionalGeneration"], **layout,
    )  # fmt: skip


CONFIGURATIONS = {
    "Qwen2.5-Omni-7B": lambda: omni(3584, 28, 28, 4, 18944, 152064),
    "Qwen2.5-Omni-3B": lambda: omni(2048, 36, 16, 2, 11008, 151936),
    "Qwen2-Audio-7B-Instruct": qwen2_audio,
}


def transformers_class(family: ModelFamily) -> Any:
    import transformers

    names = {
        "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
        "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    }
    return getattr(transformers, names[family.name])


def write_folder(name: str, folder: Path) -> tuple[ModelFamily, dict[str, tuple[int, ...]]]:
    """A checkpoint folder in shards whose files have holes for weights; its family, and the shape of every tensor."""
    config = CONFIGURATIONS[name]()
    config.save_pretrained(folder)
    family = family_of(folder)
    with torch.device("meta"):
        model: nn.Module = transformers_class(family)(getattr(config, "thinker_config", config))
    shapes = {family.checkpoint_name(key): tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    names, files = list(shapes), 5
    weight_map = {}
    for number in range(files):
        part = names[number * len(names) // files : (number + 1) * len(names) // files]
        file = f"model-{number + 1:05}-of-{files:05}.safetensors"
        _write_hollow(folder / file, {key: shapes[key] for key in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return family, shapes


def _write_hollow(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def elements_written_by_vllm(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """vLLM's model of a folder, given these tensors: of every parameter, its elements and how many were copied."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    settings = EngineArgs(
        model=str(folder), skip_tokenizer_init=True, dtype="bfloat16", max_model_len=4096, enforce_eager=True,
        hf_overrides={"architectures": [family_of(folder).vllm_architecture]}, block_size=32,
        limit_mm_per_prompt={"audio": 1, "image": 0, "video": 0}, kv_cache_memory_bytes=1 << 30,
    ).create_engine_config()  # fmt: skip
    with set_current_vllm_config(settings):
        _join_alone()
        with torch.device("meta"), set_default_torch_dtype(torch.bfloat16):
            model = initialize_model(vllm_config=settings)
    copied: dict[int, int] = {}

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.copy_.default:
                key = args[0].untyped_storage()._cdata
                copied[key] = copied.get(key, 0) + args[0].numel()
            return function(*args, **(kwargs or {}))

    with Counting():
        model.load_weights(
            (name, torch.empty(shape, dtype=torch.bfloat16, device="meta")) for name, shape in shapes.items()
        )
    return {
        name: (parameter.numel(), copied.get(parameter.untyped_storage()._cdata, 0))
        for name, parameter in model.named_parameters()
    }


def _join_alone() -> None:
    from vllm.distributed import init_distributed_environment, initialize_model_parallel

    from timepro.system.network import free_port

    init_distributed_environment(1, 0, f"tcp://127.0.0.1:{free_port('127.0.0.1')}", 0, "gloo")
    initialize_model_parallel(1, 1)


if __name__ == "__main__":
    from rollout import plugin

    plugin.register()
    print(json.dumps(elements_written_by_vllm(Path(sys.argv[1]), json.load(sys.stdin))))
