"""How a worker comes by a clip's features: files by the learner's own reader, sounds in a request by the published way.

The media connector hands on a file as a `FileClip`, unread. What the worker still has from an earlier request is not
read again; else the file's features come from a `ClipReader`, so that learner and worker share a cache and see the same
numbers. The published extractor computes over the 30 s that it pads clips to; ours over the clip alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature, WhisperFeatureExtractor

from timepro.clip_reader import ClipReader
from timepro.data.audio import read_audio
from timepro.feature_cache import CachePlace
from timepro.log_mel import ClipFeatures


class FileClip(np.ndarray):
    """An audio file in the place of a waveform. Its values are only a digest of the file's name and state.

    vLLM tells clips apart by the values of their arrays, where a request brings no name of its own for them.
    """

    path: Path
    features: ClipFeatures

    @classmethod
    def of(cls, path: Path) -> FileClip:
        """Of a file, unread. Raises FileNotFoundError where there is none."""
        s = path.stat()
        state = f"{path} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
        clip = np.frombuffer(hashlib.sha256(state.encode()).digest(), np.uint8).astype(np.float32).view(cls)
        clip.path = path
        return clip


class ClipFeatureExtractor(WhisperFeatureExtractor):
    """Whisper's feature extractor with the same result, without the work for the silence behind a clip."""

    def __call__(self, raw_speech: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """As the published one; for a list of `FileClip`s, what their features hold, padded as it pads them."""
        if not (isinstance(raw_speech, list) and raw_speech and isinstance(raw_speech[0], FileClip)):
            return super().__call__(raw_speech, *args, **kwargs)
        if args or kwargs.get("padding", "max_length") != "max_length" or kwargs.get("do_normalize"):
            raise ValueError(f"files are padded to 30 s and nothing else, but {args} {kwargs} ask for more")
        most = self.n_samples // self.hop_length
        mels = [
            clip.features.mel for clip in raw_speech
        ]  # whose last frame hears nothing but silence, as all others do
        found = {"input_features": np.stack([np.pad(m, ((0, 0), (0, most - m.shape[1])), mode="edge") for m in mels])}
        if kwargs.get("return_attention_mask"):
            frames = np.array([clip.features.frames(self.hop_length) for clip in raw_speech])
            found["attention_mask"] = (np.arange(most) < frames[:, None]).astype(np.int32)
        return BatchFeature(found, tensor_type=kwargs.get("return_tensors"))

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


class FileClipsMixin:
    """For vLLM's multimodal processor: reads the files among a request's clips."""

    _reader: tuple[Any, ClipReader] | None = None

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        clips = list(hf_data.get("audio") or ())
        if any(isinstance(clip, FileClip) for clip in clips):
            extractor = self.info.get_hf_processor(**hf_kwargs).feature_extractor  # type: ignore[attr-defined]
            hf_data = {**hf_data, "audio": self._with_features(clips, extractor)}
        return super()._call_hf_processor(hf_data, hf_kwargs)  # type: ignore[misc]

    def _with_features(self, clips: list[Any], extractor: Any) -> list[Any]:
        """The clips with their features, or as waveforms where the processor wants to see those."""
        if not isinstance(extractor, ClipFeatureExtractor) or not all(isinstance(clip, FileClip) for clip in clips):
            rate = extractor.sampling_rate
            return [read_audio(clip.path, rate) if isinstance(clip, FileClip) else clip for clip in clips]
        if self._reader is None or self._reader[0] is not extractor:
            published = WhisperFeatureExtractor.from_dict(extractor.to_dict())
            self._reader = extractor, ClipReader(published, CachePlace.from_environment())
        for clip in clips:
            clip.features = self._reader[1].read(clip.path)
        return clips
