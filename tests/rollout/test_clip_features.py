"""Features over the clip alone against the published extractor's over 30 s."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from rollout.clip_features import ClipFeatureExtractor

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
