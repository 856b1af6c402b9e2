"""Log-mel features of one clip: what learner and worker alike give the encoder, which each then pads its own way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timepro.data.audio import read_audio


@dataclass(frozen=True)
class ClipFeatures:
    """The published extractor's features of a clip, and of the silence right behind it.

    Args:
        mel: (128, M + 3) float32, M = 100 a second, rounded up; frame M + 2 hears nothing but silence. Shorter where
            the published 30 s end before.
        samples: N, the clip's length at the encoder's sampling rate.
    """

    mel: np.ndarray
    samples: int

    def frames(self, hop: int) -> int:
        """M, the mel frames that hear the clip, `hop` samples apart."""
        return -(-self.samples // hop)


def log_mel(waveform: np.ndarray, extractor: Any) -> ClipFeatures:
    """Features of a waveform (N,) at the encoder's sampling rate.

    Args:
        extractor: a `WhisperFeatureExtractor` of transformers.

    Raises:
        ValueError: a clip shorter than two mel frames, or longer than the encoder takes.
    """
    hop, window, most = extractor.hop_length, extractor.n_fft, extractor.n_samples
    n_frames = -(-len(waveform) // hop)
    if n_frames < 2:
        raise ValueError(f"the clip has {len(waveform)} samples, too few for one audio frame")
    if len(waveform) > most:
        raise ValueError(
            f"the clip has {len(waveform) / extractor.sampling_rate:.2f} s, more than the encoder's "
            f"{most / extractor.sampling_rate:.0f} s, where the published processor drops the rest; cut it"
        )
    # One window of silence behind the clip is what the published padding to 30 s amounts to. It ends where that
    # padding ends, since the extractor mirrors what stands there.
    padded = np.zeros(min(most, (n_frames + 1) * hop + window), np.float32)
    padded[: len(waveform)] = waveform
    mel = extractor(
        padded,
        sampling_rate=extractor.sampling_rate,
        padding="do_not_pad",
        truncation=False,
        return_tensors="np",
    ).input_features[0]
    return ClipFeatures(np.ascontiguousarray(mel, np.float32), len(waveform))


def file_features(path: Path, extractor: Any) -> ClipFeatures:
    """Features of an audio file. Raises as `read_audio` and `log_mel` do; the latter's messages bear the path, too."""
    waveform = read_audio(path, extractor.sampling_rate)
    try:
        return log_mel(waveform, extractor)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
