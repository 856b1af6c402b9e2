"""Clips, checkpoint and prompts that all systems of `peers.py` are given."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers_task import QUESTION, TOKENS

from timepro.data.manifest import iter_manifest
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.synth import write_split
from timepro.features import Processor
from timepro.tasks import find_task
from timepro.tiny.base import FOLDER

SECONDS = 5.0
# Those that the shipped base has heard.
CLASSES = ["alarm_beep", "siren", "dog_bark", "glass_breaking", "engine", "speech", "door_knock", "cat_meow"]
TASK = "timepro.tiny.hearing:Ordering"
FAMILY = "qwen2_5_omni"
LAYERS = "thinker.model.layers."
GROWN_LAYERS, GROWN_FEED_FORWARD = 12, 2048


def soundscape() -> SoundscapeConfig:
    """Clips of one length with two to four sounds."""
    return SoundscapeConfig(min_duration=SECONDS, max_duration=SECONDS, min_events=2, max_events=4, classes=CLASSES)


def prepare(folder: Path, clips: int, model: str = "base") -> dict[str, Any]:
    """Write everything into a folder, or find it written.

    Args:
        model: `base`, as shipped, or `grown` (see `grow`).

    Returns:
        what the workload is, for the results.
    """
    config = soundscape()
    wanted = {"model": model, "clips": clips, "seconds": SECONDS, "question": QUESTION, "max_tokens": TOKENS}
    stamp = folder / "workload.json"
    asked = {**wanted, "soundscape": asdict(config)}
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8"))["asked"] == asked:
        return dict(json.loads(stamp.read_text(encoding="utf-8"))["workload"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parameters = write_checkpoint(folder / "checkpoint", model == "grown")
    write_split(folder, "train", clips, 0, config)
    write_split(folder, "test", 1, 0, config)
    tokens = write_prompts(folder)
    workload = {**wanted, "parameters": parameters, "prompt_tokens": tokens}
    stamp.write_text(json.dumps({"asked": asked, "workload": workload}), encoding="utf-8")
    return workload


def write_checkpoint(folder: Path, grown: bool) -> int:
    """The shipped base in float32, with the file of voices that ms-swift's model class asks for; its parameters."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(FOLDER / FAMILY, folder)
    path = folder / "model.safetensors"
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    if grown:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        grow(weights, config["thinker_config"]["text_config"])
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    save_file(weights, path, metadata={"format": "pt"})
    torch.save({}, folder / "spk_dict.pt")
    return sum(tensor.numel() for tensor in weights.values())


def grow(weights: dict[str, Any], config: dict[str, Any]) -> None:
    """Make the decoder larger in place without a change of what it says: it computes more, to no effect yet.

    Feed-forward layers get features that nothing reads, and layers are added that add nothing.

    Args:
        weights: by their published names.
        config: of the decoder.
    """
    import torch

    first, width = config["num_hidden_layers"], config["hidden_size"]
    added = GROWN_FEED_FORWARD - config["intermediate_size"]
    drawn = torch.Generator().manual_seed(0)
    for name in [name for name in weights if name.startswith(LAYERS)]:
        if name.endswith(("gate_proj.weight", "up_proj.weight")):
            more = 0.02 * torch.randn(added, width, generator=drawn)
            weights[name] = torch.cat([weights[name], more])
        elif name.endswith("down_proj.weight"):
            weights[name] = torch.cat([weights[name], torch.zeros(width, added)], dim=1)
    for name in [name for name in weights if name.startswith(f"{LAYERS}0.")]:
        for number in range(first, GROWN_LAYERS):
            silent = name.endswith(("o_proj.weight", "down_proj.weight"))
            copied = torch.zeros_like(weights[name]) if silent else weights[name].clone()
            weights[name.replace(f"{LAYERS}0.", f"{LAYERS}{number}.")] = copied
    config |= {
        "num_hidden_layers": GROWN_LAYERS, "intermediate_size": GROWN_FEED_FORWARD,
        "layer_types": ["full_attention"] * GROWN_LAYERS,
    }  # fmt: skip


def write_prompts(folder: Path) -> int:
    """What the systems read: `prompts.jsonl` and `frames.safetensors` for TRL, `swift.jsonl`; tokens of a prompt."""
    import torch
    from safetensors.torch import save_file

    processor, task = Processor(folder / "checkpoint"), find_task(TASK)
    model = processor.family.load(folder / "checkpoint", torch.float32)
    prompts, swift, frames = [], [], []
    for clip in iter_manifest(folder / "train" / "train.jsonl"):
        (sample,) = task.samples(clip, "exact")
        if sample.question != QUESTION:
            raise ValueError(f"{clip.id}: the task {TASK} does not ask {QUESTION!r} about a clip")
        with torch.no_grad():
            encoder = processor.family.audio_encoder(model)
            frames += processor.family.encode(encoder, [processor.features(sample.audio)])
        ids = processor.expanded_prompt(QUESTION, len(frames[-1]))
        wanted, audio = sample.reference[0].label, str(sample.audio.resolve())
        text = processor.tokenizer.decode(ids, skip_special_tokens=False)
        prompts.append({"id": clip.id, "audio": audio, "wanted": wanted, "text": text, "token_ids": ids})
        messages = [{"role": "user", "content": f"<audio>{QUESTION}"}]
        swift.append({"messages": messages, "audios": [audio], "wanted": wanted})
    for name, lines in (("prompts", prompts), ("swift", swift)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    save_file({"frames": torch.cat(frames)}, folder / "frames.safetensors")
    return len(prompts[0]["token_ids"])
