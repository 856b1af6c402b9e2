"""Encoded frames that are kept: each clip goes through the encoder once."""

from __future__ import annotations

import threading
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


def test_clips_read_ahead_give_the_very_frames(parts, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """In another thread, each once; those that are not asked for are forgotten."""
    processor, encoder = parts
    plain = FrameCache(encoder, processor, limit_gib=1.0)
    expected = plain(clips[:1]) + plain(clips)[1:]  # encoded in the same batches
    threads: list[tuple[str, str]] = []
    features = Processor.features

    def noted(self: Processor, path: Path) -> torch.Tensor:
        threads.append((path.name, threading.current_thread().name))
        return features(self, path)

    monkeypatch.setattr(Processor, "features", noted)
    cache = FrameCache(encoder, processor, limit_gib=1.0)
    cache.read_ahead(clips[:1])
    cache(clips[:1])  # so that nothing of it is under way
    cache.read_ahead([clips[1], clips[0], clips[1]])
    found = cache(clips)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    ahead = [name for name, thread in threads if thread.startswith("features")]
    assert ahead == ["0.wav", "1.wav"]  # the first is kept encoded
    assert [name for name, thread in threads if not thread.startswith("features")] == ["2.wav"]


def test_a_clip_that_cannot_be_read_ahead_fails_where_it_is_asked_for(parts, tmp_path: Path) -> None:
    cache = FrameCache(parts[1], parts[0], limit_gib=1.0)
    cache.read_ahead([tmp_path / "none.wav"])
    with pytest.raises(FileNotFoundError, match="none.wav"):
        cache([tmp_path / "none.wav"])
    with pytest.raises(FileNotFoundError, match="none.wav"):  # asked for again: read again
        cache([tmp_path / "none.wav"])


def test_nothing_is_added_where_nothing_is_kept(parts, clips: list[Path]) -> None:
    processor, encoder = parts
    cache = FrameCache(encoder, processor, limit_gib=0.0)
    cache.add(clips, [processor.features(path) for path in clips])
    assert cache.encoded == 0
    assert len(cache(clips)) == 3 and cache.encoded == 3
