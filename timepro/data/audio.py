"""Audio files: what they hold, without decoding them, and their samples as mono float32 at the model's rate.

Any rate, width and number of channels that libsndfile reads is accepted: channels are averaged, other rates resampled.
What cannot be trusted is refused: a file that is missing, empty, cut short, undecodable or not finite.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import soundfile

from timepro.data.files import file_problem

LENGTH_TOLERANCE = 0.2
"""Seconds by which audio may differ from its stated duration: published tables round to 0.1 s."""

_BLOCK = 1 << 18  # frames in memory at a time: an hour with many channels must not be held whole before it is mono
_TAIL = 1024  # frames at the end that show whether a file is whole
_LONG = 1 << 22  # samples that are resampled in one piece at most: minutes
_CONTEXT = 64  # samples at the lower rate beside a piece; torchaudio's filter reaches over 7
_ENDLESS = 0x7FFFF000  # RIFF sizes from here on are what programs write that do not know the length yet


@dataclass(frozen=True, slots=True)
class AudioHeader:
    """What a file says about itself: frames a channel, frames a second, channels."""

    frames: int
    rate: int
    channels: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.rate


def read_header(path: str | os.PathLike[str]) -> AudioHeader:
    """What a file says about itself, without decoding any of it. Raises as `read_audio` does."""
    with _opened(path) as file:
        return AudioHeader(file.frames, file.samplerate, file.channels)


def check_audio(path: str | os.PathLike[str]) -> AudioHeader:
    """Check a file without decoding all of it, in memory that does not grow with its length.

    The header is read and the last frames are decoded, so that a file cut short is found. Formats that can hold NaN,
    those with float samples, are read through, a block at a time.
    Raises as `read_audio` does; damage in the middle of a compressed file is found by `read_audio` alone.
    """
    with _opened(path) as file:
        header = AudioHeader(file.frames, file.samplerate, file.channels)
        tail = min(_TAIL, file.frames)
        file.seek(file.frames - tail)
        if len(file.read(tail, dtype="float32")) != tail:
            raise ValueError(f"{path}: cut short, the last of its {file.frames} frames cannot be read; replace it")
        if file.subtype in ("FLOAT", "DOUBLE"):
            file.seek(0)
            for block in _blocks(file):
                _require_finite(path, block)
    return header


def read_audio(path: str | os.PathLike[str], sample_rate: int = 16000) -> np.ndarray:
    """Read a file, mix it to mono (mean of the channels) and resample it where its rate differs.

    Returns float32 of shape (N,), N samples at ``sample_rate`` Hz. Raises FileNotFoundError for a missing file and
    ValueError, naming the file, for one that is a folder, cannot be decoded, is cut short, is empty or holds NaN or
    infinity.
    """
    with _opened(path) as file:
        expected, rate = file.frames, file.samplerate
        pieces = []
        for block in _blocks(file):
            _require_finite(path, block)
            pieces.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32))
    mono = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if len(mono) != expected:
        raise ValueError(f"{path}: cut short, {len(mono)} of {expected} samples could be read; replace the file")
    return np.ascontiguousarray(mono) if rate == sample_rate else resampled(mono, rate, sample_rate)


def audio_blocks(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """The samples of a file as they are, float32 (frames, channels), some seconds at a time. Raises as `read_audio`.

    Samples that are not finite are given like any others.
    """
    with _opened(path) as file:
        read = 0
        for block in _blocks(file):
            read += len(block)
            yield block
        if read != file.frames:
            raise ValueError(f"{path}: cut short, {read} of {file.frames} samples could be read; replace the file")


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[soundfile.SoundFile]:
    """The file, open, with at least one frame; what libsndfile says against it becomes ValueError."""
    if wrong := file_problem(path):
        if wrong == "does not exist":
            raise FileNotFoundError(f"{path}: no such audio file; check the path, or leave the clip out")
        raise ValueError(f"{path}: {wrong}; an audio file is needed here")
    try:
        try:
            file = soundfile.SoundFile(path)
        except TypeError as problem:  # by their names, files of a format without a header
            raise RuntimeError(problem) from None
        with file:
            if file.frames == 0:
                raise ValueError(f"{path}: holds no samples; replace or remove the file")
            if file.format in ("WAV", "WAVEX"):
                _require_whole_riff(path)
            yield file
    except (soundfile.SoundFileError, RuntimeError) as problem:
        raise ValueError(f"{path}: cannot be decoded as audio ({problem}); replace or remove the file") from None


def _require_whole_riff(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for a WAV file that ends before its header says: libsndfile silently reads what is there."""
    with open(path, "rb") as file:
        start = file.read(8)
        there = os.fstat(file.fileno()).st_size
    stated = int.from_bytes(start[4:], "little")
    if start[:4] == b"RIFF" and stated < _ENDLESS and stated + 8 > there + 1:  # a pad byte is often forgotten
        raise ValueError(f"{path}: cut short, {there} of {stated + 8} bytes are there; replace the file")


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """The samples from here on, float32 (frames, channels), as far as they can be read."""
    left = file.frames
    while left > 0 and len(block := file.read(min(_BLOCK, left), dtype="float32", always_2d=True)):
        yield block
        left -= len(block)


def _require_finite(path: str | os.PathLike[str], samples: np.ndarray) -> None:
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: holds NaN or infinite samples; export it again")


def resampled(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample (N,) in one piece where it is short, else in pieces that overlap by more than the filter is long."""
    # Imported here: torchaudio costs seconds and most files already have the right rate.
    import torch
    from torchaudio.functional import resample

    def piece(start: int, stop: int) -> np.ndarray:
        return resample(torch.from_numpy(np.ascontiguousarray(samples[start:stop])), rate, target).numpy()

    if len(samples) <= _LONG:  # the whole costs many times its size in memory
        return piece(0, len(samples))
    divisor = math.gcd(rate, target)
    period, made = rate // divisor, target // divisor  # so many samples become so many
    block = period * max(1, _LONG // 4 // period)
    context = period * math.ceil(_CONTEXT * max(1.0, rate / target) / period)
    pieces = []
    for start in range(0, len(samples), block):
        first = max(0, start - context)
        out = piece(first, start + block + context)[(start - first) // period * made :]
        pieces.append(out if start + block >= len(samples) else out[: block // period * made])
    return np.concatenate(pieces)
