"""Audio files in, features out: from the cache of a node where there is one, the same to the last bit."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np

from timepro.feature_cache import CachePlace, FeatureCache
from timepro.log_mel import ClipFeatures, file_features
from timepro.system.source import import_closure

_LIBRARIES = ("transformers", "torch", "torchaudio", "soundfile", "numpy")
_SETTINGS = ("feature_size", "sampling_rate", "hop_length", "n_fft", "n_samples", "padding_value")


class ClipReader:
    """Reads clips for one feature extractor.

    Args:
        extractor: a `WhisperFeatureExtractor` of transformers.
        place: where features are kept; None, or no room there: they are computed every time.
    """

    def __init__(self, extractor: Any, place: CachePlace | None = None) -> None:
        self._extractor = extractor
        keeps = place is not None and place.gigabytes > 0 and not extractor.dither  # which is drawn anew every time
        self._cache = FeatureCache(place, settings_key(extractor)) if place is not None and keeps else None

    def read(self, path: Path) -> ClipFeatures:
        """The features of an audio file. Raises as `file_features` does."""
        if self._cache is None:
            return file_features(path, self._extractor)
        return self._cache.get(path, lambda: file_features(path, self._extractor))


def settings_key(extractor: Any) -> str:
    """Names all that features depend on but the clip: the extractor, our code, the libraries that decode and compute.

    It is the same for all families whose extractor is set up alike, and in learner and worker.
    """
    settings = {name: getattr(extractor, name) for name in _SETTINGS}
    h = hashlib.sha256(json.dumps([settings, _made_by()]).encode())
    h.update(np.ascontiguousarray(extractor.mel_filters).tobytes())
    return h.hexdigest()


@functools.cache
def _made_by() -> list[str]:
    import soundfile

    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in import_closure("timepro.log_mel")]
    return [*code, soundfile.__libsndfile_version__, *map(importlib.metadata.version, _LIBRARIES)]
