"""Log-mel features over a clip alone: the published extractor computes them over the 30 s that it pads clips to."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import WhisperFeatureExtractor


class ClipFeatureExtractor(WhisperFeatureExtractor):
    """Whisper's feature extractor with the same result, without the work for the silence behind a clip."""

    def _torch_extract_fbank_features(self, waveform: np.ndarray, device: str = "cpu") -> np.ndarray:
        """Features (B, 128, M) of padded waveforms (B, N), M = N / hop.

        All frames of silence are alike, so that the last one of those computed stands for the others.
        """
        heard = np.flatnonzero(np.any(waveform != 0.0, axis=0))
        frames = -(-(int(heard[-1]) + 1 + self.n_fft) // self.hop_length) + 1 if len(heard) else 4
        if self.dither or frames * self.hop_length >= waveform.shape[-1]:
            return super()._torch_extract_fbank_features(waveform, device)
        mel = super()._torch_extract_fbank_features(waveform[:, : frames * self.hop_length], device)
        silent = waveform.shape[-1] // self.hop_length - frames
        return np.pad(mel, ((0, 0), (0, 0), (0, silent)), mode="edge")


class ClipFeaturesMixin:
    """For vLLM's processing information: puts a `ClipFeatureExtractor` into the published processor."""

    def get_hf_processor(self, **kwargs: object) -> Any:
        processor = super().get_hf_processor(**kwargs)  # type: ignore[misc]
        extractor: Any = getattr(processor, "feature_extractor", None)
        if type(extractor) is WhisperFeatureExtractor:  # one of another kind knows what it does
            processor.feature_extractor = ClipFeatureExtractor.from_dict(extractor.to_dict())
        return processor
