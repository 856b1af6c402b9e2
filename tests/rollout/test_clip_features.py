"""Features over the clip alone against the published extractor's over 30 s; files as the learner reads them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor, WhisperFeatureExtractor

from rollout.clip_features import ClipFeatureExtractor, ClipFeaturesMixin, FileClip, FileClipsMixin
from rollout.settings import WorkerConfig
from rollout.worker import worker_environment
from timepro import feature_cache
from timepro.data.audio import read_audio
from timepro.feature_cache import FEATURES_VARIABLE, CachePlace
from timepro.features import Processor

PUBLISHED = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
OWN = ClipFeatureExtractor.from_dict(PUBLISHED.to_dict())


def both(clips: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    given = {"sampling_rate": 16000, "padding": "max_length", "return_attention_mask": True, "return_tensors": "np"}
    return [extractor(clips, **given) for extractor in (PUBLISHED, OWN)]


def noise(samples: int, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(samples).normal(size=samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [321, 16000, 79_999, 80_000, 80_001, 80_160, 16000 * 29, 479_000, 480_000])
@pytest.mark.parametrize("level", [1e-6, 0.1])
def test_the_features_are_the_published_ones(samples: int, level: float) -> None:
    published, own = both([noise(samples, level)])
    assert own["input_features"].shape == published["input_features"].shape == (1, 128, 3000)
    np.testing.assert_allclose(own["input_features"], published["input_features"], rtol=0, atol=2e-6)
    np.testing.assert_array_equal(own["attention_mask"], published["attention_mask"])


def test_clips_of_several_lengths_and_silent_ones_in_a_batch() -> None:
    fading = noise(48_000)
    fading[20_000:] = 0.0  # silence that belongs to the clip
    published, own = both([noise(80_000), np.zeros(32_000, np.float32), fading])
    np.testing.assert_allclose(own["input_features"], published["input_features"], rtol=0, atol=2e-6)
    published, own = both([np.zeros(32_000, np.float32)])
    np.testing.assert_array_equal(own["input_features"], published["input_features"])


def test_it_computes_the_clip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    original = WhisperFeatureExtractor._torch_extract_fbank_features

    def watched(self: WhisperFeatureExtractor, waveform: np.ndarray, device: str = "cpu") -> np.ndarray:
        lengths.append(waveform.shape[-1])
        return original(self, waveform, device)

    monkeypatch.setattr(WhisperFeatureExtractor, "_torch_extract_fbank_features", watched)
    both([noise(80_000)])
    assert lengths == [480_000, 80_640]


class Published:
    """What vLLM's processing does with the published processor, without vLLM."""

    def __init__(self, checkpoint: Path) -> None:
        self.info = Info(checkpoint)

    def _call_hf_processor(self, hf_data: dict[str, Any], hf_kwargs: dict[str, object]) -> Any:
        return self.info.get_hf_processor()(**hf_data, return_tensors="pt", sampling_rate=16000)


class PublishedInfo:
    def __init__(self, checkpoint: Path) -> None:
        self._processor = AutoProcessor.from_pretrained(checkpoint, local_files_only=True)

    def get_hf_processor(self, **kwargs: object) -> Any:
        return self._processor


class Info(ClipFeaturesMixin, PublishedInfo):
    pass


class Worker(FileClipsMixin, Published):
    def __call__(self, *clips: Any) -> Any:
        text = self.info.get_hf_processor().audio_token * len(clips)
        return self._call_hf_processor({"text": text, "audio": list(clips)}, {})


@pytest.fixture(params=["tiny_checkpoint", "tiny_qwen2_audio"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CachePlace:
    """As a worker's environment names it."""
    place = CachePlace(str(tmp_path / "features"), 1.0)
    monkeypatch.setenv(FEATURES_VARIABLE, worker_environment(WorkerConfig(), "t", features=place)[FEATURES_VARIABLE])
    monkeypatch.setattr(feature_cache, "_SETTLED_S", -1.0)
    return place


def sound(path: Path, seconds: float, rate: int = 16000) -> Path:
    soundfile.write(path, noise(round(rate * seconds)), rate)
    return path


@pytest.mark.parametrize(("seconds", "rate"), [(5.0, 16000), (2.345, 48000), (29.99, 16000), (30.0, 16000)])
def test_a_file_gives_what_its_waveform_gives(checkpoint: Path, tmp_path: Path, seconds: float, rate: int) -> None:
    path = sound(tmp_path / "a.wav", seconds, rate)
    worker = Worker(checkpoint)
    own, published = worker(FileClip.of(path)), worker(read_audio(path))
    assert own.keys() == published.keys()
    for key in published:
        assert own[key].dtype == published[key].dtype and own[key].shape == published[key].shape
    assert torch.equal(own["feature_attention_mask"], published["feature_attention_mask"])
    torch.testing.assert_close(own["input_features"], published["input_features"], rtol=0, atol=2e-6)


def test_worker_and_learner_share_one_computation(
    checkpoint: Path, tmp_path: Path, place: CachePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sound(tmp_path / "a.flac", 1.3), sound(tmp_path / "b.flac", 2.0)
    plain = Processor(checkpoint)
    expected = [plain.features(path) for path in (first, second)]
    learner, worker = Processor(checkpoint, place), Worker(checkpoint)
    kept = [learner.features(first)]
    asked = worker(FileClip.of(second))
    monkeypatch.setattr("timepro.clip_reader.file_features", None)  # from here on both only look up
    asked = [worker(FileClip.of(first)), asked]
    kept.append(learner.features(second))
    for mine, worked, plainly in zip(kept, asked, expected, strict=True):
        assert torch.equal(mine, plainly)
        assert torch.equal(worked["input_features"][0, :, : mine.shape[1]], plainly)


def test_the_checkpoints_of_both_families_share_entries(
    tiny_checkpoint: Path, tiny_qwen2_audio: Path, tmp_path: Path, place: CachePlace
) -> None:
    path = sound(tmp_path / "a.wav", 1.0)
    for folder in (tiny_checkpoint, tiny_qwen2_audio):
        Processor(folder, place).features(path)
    assert len(list(Path(place.folder).glob("clips/*/*"))) == 1


def test_without_a_place_nothing_is_kept(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FEATURES_VARIABLE, worker_environment(WorkerConfig(), "t")[FEATURES_VARIABLE])
    path = sound(tmp_path / "a.wav", 1.0)
    features = Worker(checkpoint)(FileClip.of(path))["input_features"]
    assert torch.equal(features[0, :, :100], Processor(checkpoint).features(path)[:, :100])
    assert sorted(tmp_path.iterdir()) == [path]


def test_sounds_in_a_request_and_other_extractors_get_waveforms(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", 1.0, 48000)
    worker = Worker(tiny_checkpoint)
    both = worker(FileClip.of(path), noise(8000))
    assert torch.equal(both["input_features"][:1], worker(read_audio(path))["input_features"])

    class OtherKind(WhisperFeatureExtractor):
        pass

    processor = worker.info.get_hf_processor()
    processor.feature_extractor = OtherKind.from_dict(PUBLISHED.to_dict())
    other = worker(FileClip.of(path))
    assert type(worker.info.get_hf_processor().feature_extractor) is OtherKind
    torch.testing.assert_close(other["input_features"], both["input_features"][:1], rtol=0, atol=2e-6)


def test_a_file_that_cannot_be_read_says_so(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio" * 99)
    with pytest.raises(ValueError, match=r"a\.wav: cannot be decoded as audio"):
        Worker(checkpoint)(FileClip.of(tmp_path / "a.wav"))


def test_files_are_told_apart_by_their_values_as_vllm_does_without_a_uuid(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", 1.0)
    first, again = FileClip.of(path), FileClip.of(path)
    assert np.array_equal(first, again)
    shutil.copy(path, tmp_path / "b.wav")
    assert not np.array_equal(first, FileClip.of(tmp_path / "b.wav"))
    before = path.stat()
    soundfile.write(path, noise(16000, 0.2), 16000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and not np.array_equal(first, FileClip.of(path))


@pytest.mark.slow  # vLLM is imported
def test_vllms_own_processor_passes_files_through(
    tiny_checkpoint: Path, tmp_path: Path, place: CachePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    from rollout.plugin import register
    from timepro.families import family_of

    register()
    architecture = family_of(tiny_checkpoint).vllm_architecture
    model = ModelConfig(
        str(tiny_checkpoint), max_model_len=1024, dtype="float32", hf_overrides={"architectures": [architecture]},
        limit_mm_per_prompt={"audio": 1, "image": 0, "video": 0},
    )  # fmt: skip
    processor = MULTIMODAL_REGISTRY.create_processor(model)
    learner = Processor(tiny_checkpoint, place)
    first, second = sound(tmp_path / "a.flac", 1.3), sound(tmp_path / "b.flac", 2.0)
    learner.features(first)
    seen = []
    for path in (first, second):
        items = processor.info.parse_mm_data({"audio": [FileClip.of(path)]})
        made = processor(learner.prompt_ids("When?"), items)
        (item,) = made["mm_kwargs"]["audio"]
        features = learner.features(path)
        n_frames = learner.family.audio_frames(features.shape[-1] - learner.family.mel_margin)
        assert torch.equal(item["input_audio_features"].data, features[:, : features.shape[1]])
        assert made["prompt_token_ids"] == learner.expanded_prompt("When?", n_frames)
        seen += made["mm_hashes"]["audio"]
    assert len(set(seen)) == 2  # no clip is taken for another, though no request names them
