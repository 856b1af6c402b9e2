"""Encoded frames that are kept: each clip goes through the encoder once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from timepro.features import Processor
from trainer.learner.frames import FrameCache


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng, paths = tmp_path_factory.mktemp("clips"), np.random.default_rng(0), []
    for i, seconds in enumerate((1.0, 1.72, 2.4)):
        paths.append(folder / f"{i}.wav")
        soundfile.write(paths[-1], rng.normal(size=int(16000 * seconds)).astype(np.float32) * 0.1, 16000)
    return paths


@pytest.fixture(scope="module")
def parts(tiny_checkpoint: Path) -> tuple[Processor, torch.nn.Module]:
    processor = Processor(tiny_checkpoint)
    model = processor.family.load(tiny_checkpoint, torch.float32)
    return processor, processor.family.audio_encoder(model).eval()


def test_frames_added_from_features_are_those_read_from_the_files(parts, clips: list[Path]) -> None:
    processor, encoder = parts
    read, added = (FrameCache(encoder, processor, limit_gib=1.0) for _ in range(2))
    expected = read(clips)
    added.add(clips, [processor.features(path) for path in clips])
    found = added(clips)
    assert read.encoded == added.encoded == 3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_is_added_where_nothing_is_kept(parts, clips: list[Path]) -> None:
    processor, encoder = parts
    cache = FrameCache(encoder, processor, limit_gib=0.0)
    cache.add(clips, [processor.features(path) for path in clips])
    assert cache.encoded == 0
    assert len(cache(clips)) == 3 and cache.encoded == 3
