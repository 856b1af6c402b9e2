"""A clip's sound and its spectrogram, as addresses that hold the data itself: the page loads nothing from elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from timepro.data.audio import read_audio
from timepro.plots.spectrogram import RATE, spectrogram_jpeg

_TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".ogg": "audio/ogg", ".mp3": "audio/mpeg"}
_LARGEST_CLIP = 4 << 20  # bytes of one clip that are put into the page
_COLUMNS = 800  # of the picture: about as many as a screen shows


def sound_and_picture(path: Path) -> dict[str, str]:
    """The keys `audio` and `picture` of a clip; empty where the file is gone, too large, or not for browsers."""
    kind = _TYPES.get(path.suffix.lower())
    if kind is None or not path.is_file() or path.stat().st_size > _LARGEST_CLIP:
        return {"audio": "", "picture": ""}
    sound = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return {"audio": sound, "picture": _picture(read_audio(path, RATE))}


def _picture(waveform: np.ndarray) -> str:
    """The spectrogram of a waveform (N,), from its first to its last sample."""
    return f"data:image/jpeg;base64,{base64.b64encode(spectrogram_jpeg(waveform, _COLUMNS)).decode()}"
