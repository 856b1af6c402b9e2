"""The frame-wise warm-up: of a whole encoder, and of the projector behind one that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.distributed as dist
from torch import nn

from timepro.events import Event
from timepro.features import Processor
from timepro.tasks import Sample
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig
from trainer.learner.warmup import warm_up
from trainer.settings.encoder_warmup import EncoderWarmupConfig


class Never:
    """Nobody asks for a stop."""

    def agreed(self) -> int:
        return 0


@pytest.fixture
def group() -> Iterator[None]:
    """This process as the only rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=["qwen2_5_omni", "qwen2_audio"])
def processor(request: pytest.FixtureRequest, tmp_path: Path) -> Processor:
    config = TinyModelConfig(
        family=request.param, hidden_size=64, heads=2, key_value_heads=1, layers=1, encoder_width=32, encoder_layers=1,
        encoder_heads=2, encoder_feed_forward=64,
    )  # fmt: skip
    build_tiny_checkpoint(tmp_path / "checkpoint", config, ["tone"], ["When?"])
    return Processor(tmp_path / "checkpoint")


def samples_of(folder: Path) -> list[Sample]:
    """A tone of a second somewhere in three seconds, six times."""
    found = []
    for number in range(6):
        onset = 0.3 * number
        wave = 0.01 * np.random.default_rng(number).standard_normal(48000)
        first = round(onset * 16000)
        wave[first : first + 16000] += 0.3 * np.sin(2 * np.pi * 700 * np.arange(16000) / 16000)
        path = folder / f"{number}.wav"
        soundfile.write(path, wave, 16000)
        events = (Event(onset, onset + 1.0, "tone"),)
        found.append(Sample(str(number), "sed", path, 3.0, "When?", events, events))
    return found


@pytest.mark.parametrize("part", ["projector", "all"])
def test_what_is_trained_and_what_stays(group: None, processor: Processor, tmp_path: Path, part: str) -> None:
    family, samples = processor.family, samples_of(tmp_path)
    encoder = family.audio_encoder(family.load(tmp_path / "checkpoint", torch.float32))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    features = [processor.features(sample.audio) for sample in samples]
    settings = EncoderWarmupConfig(steps=150, part=part, clips=6, learning_rate=5e-3)
    assert warm_up(encoder, processor, samples, settings, 0, Never(), features) == 0
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    own = {name for name in before if name.startswith(f"{family.projector}.")}
    assert own and own <= moved
    assert moved == own if part == "projector" else any("conv1" in name for name in moved)
    assert not any(parameter.requires_grad for parameter in encoder.parameters()) and not encoder.training
    # Where the tone is can be read off the frames by a line, better than before.
    assert separation(family, encoder, features) > 1.1 * separation(family, at(encoder, before), features)


def at(encoder: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    encoder.load_state_dict(state)
    return encoder


def separation(family, encoder: nn.Module, features: list[torch.Tensor]) -> float:
    """Distance of the mean frames with and without the tone, over the spread within each."""
    with torch.no_grad():
        frames = family.encode(encoder, features)
    inside, outside = [], []
    for number, clip in enumerate(frames):
        first = round(0.3 * number * 25)
        active = torch.zeros(len(clip), dtype=torch.bool)
        active[first + 3 : first + 22] = True
        quiet = torch.ones(len(clip), dtype=torch.bool)
        quiet[max(0, first - 3) : first + 28] = False
        inside.append(clip[active])
        outside.append(clip[quiet])
    a, b = torch.cat(inside), torch.cat(outside)
    return float((a.mean(0) - b.mean(0)).norm() / (a.std(0).norm() + b.std(0).norm()))


def test_a_family_without_a_projector_is_refused(
    group: None, processor: Processor, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(type(processor.family), "projector", "")
    samples = samples_of(tmp_path)
    encoder = processor.family.audio_encoder(processor.family.load(tmp_path / "checkpoint", torch.float32))
    features = [processor.features(sample.audio) for sample in samples]
    with pytest.raises(ValueError, match="names no projector"):
        warm_up(encoder, processor, samples, EncoderWarmupConfig(1, "projector"), 0, Never(), features)
