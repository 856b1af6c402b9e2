"""Checkpoints of the published ones' shape at a tiny size, and data as people have it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from timepro.config import load_experiment
from timepro.data.sounds import SOUNDS
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import write_split
from timepro.families import family_of
from timepro.init_model import TimestampSettings, init_model
from timepro.tasks.samples import tokenizer_texts
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig
from trainer.settings.experiment import ExperimentConfig

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
# Query heads, key heads (28 and 4, 32 and 32 in the published ones; vLLM's heads are at least 32 wide), vocabulary.
SHAPES = {"qwen2_5_omni": (7, 1, 152_064), "qwen2_audio": (4, 4, 156_032)}
SHARDS = 3


def build(folder: Path, family: str) -> Path:
    """Vocabulary, ratio of heads, biases, bfloat16, untied head, shards with an index; then `timepro init-model`."""
    import torch
    from safetensors.torch import load_file, save_file

    heads, key_heads, vocabulary = SHAPES[family]
    config = TinyModelConfig(
        family=family, hidden_size=32 * heads, heads=heads, key_value_heads=key_heads, feed_forward=64,
        encoder_width=32, encoder_layers=1, encoder_heads=2, encoder_feed_forward=48, vocabulary=vocabulary,
        rope_theta=1e6,
    )  # fmt: skip
    published = folder / "published"
    texts = tokenizer_texts() + [text for sound in SOUNDS.values() for text in (sound.spoken, *sound.captions)]
    build_tiny_checkpoint(published, config, SOUNDS, texts, as_published=True)
    weights = load_file(published / "model.safetensors")
    torch.manual_seed(1)
    for name, tensor in weights.items():
        if name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")):
            tensor.normal_(0.0, 0.2)  # zero in a fresh model, large in published ones
    names, weight_map = sorted(weights), {}
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        part = {name: weights[name].to(torch.bfloat16) for name in names[number::SHARDS]}
        save_file(part, published / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (published / "model.safetensors").unlink()
    (published / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    whole = (published / "config.json").read_text().replace('"float32"', '"bfloat16"')
    (published / "config.json").write_text(whole)
    init_model(published, folder / "checkpoint", TimestampSettings())
    shutil.rmtree(published)
    assert family_of(folder / "checkpoint").name == family
    return folder / "checkpoint"


def write_data(folder: Path) -> dict[str, Path]:
    """One manifest a split; the first clip of each lasts 30 s. The audio lies in a tree of its own."""
    manifests = {}
    (folder / "manifests").mkdir(parents=True)
    for seed, split in enumerate(("sft", "rl", "validation", "test")):
        lines = []
        for part, n, seconds in (("long", 1, 30.0), ("short", 3, 4.0)):
            length = SoundscapeConfig(min_duration=seconds, max_duration=seconds)
            made = write_split(folder / "made", f"{split}_{part}", n, seed, length)
            for line in map(json.loads, made.read_text().splitlines()):
                audio = folder / "recordings" / split / f"{line['id']}.flac"
                audio.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(made.parent / line["audio"], audio)
                lines.append(json.dumps(line | {"audio": str(audio)}))
        manifests[split] = folder / "manifests" / f"{split}.jsonl"
        manifests[split].write_text("\n".join(lines) + "\n")
    return manifests


def settings_of(name: str) -> ExperimentConfig:
    return load_experiment(name, [], ExperimentConfig, EXPERIMENTS)
