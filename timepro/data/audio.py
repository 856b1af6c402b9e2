"""Reading audio files as mono float32 at the model's rate."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile


def read_audio(path: str | os.PathLike[str], sample_rate: int = 16000) -> np.ndarray:
    """Read a file, mix it to mono (mean of the channels) and resample it where its rate differs.

    Returns float32 of shape (N,), N samples at ``sample_rate`` Hz. Raises FileNotFoundError for a missing file and
    ValueError, naming the file, for one that cannot be decoded, is cut short, is empty or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file; check the manifest's 'audio' path")
    try:
        with soundfile.SoundFile(path) as file:
            expected, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as problem:
        raise ValueError(f"{path}: cannot be decoded as audio ({problem}); replace or remove the file") from None
    if len(samples) != expected:
        raise ValueError(f"{path}: cut short, {len(samples)} of {expected} samples could be read; replace the file")
    if not len(samples):
        raise ValueError(f"{path}: holds no samples; replace or remove the file")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: holds NaN or infinite samples; export it again")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return np.ascontiguousarray(mono) if rate == sample_rate else _resample(mono, rate, sample_rate)


def _resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    # Imported here: torchaudio costs seconds and most files already have the right rate.
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(np.ascontiguousarray(samples)), rate, target).numpy()
