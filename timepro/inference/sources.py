"""Sound from a file or an address, as chunks of samples: never all of it in memory, and every wait has a deadline.

libsndfile reads what it knows (wav, flac, ogg, mp3), FFmpeg through PyAV everything else: mp4, m4a, mkv, http, rtsp.
Of a video, its first audio track. Its times are the player's: where the track begins late, or misses a stretch, there
is silence instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from timepro.data.audio import audio_blocks, read_header
from timepro.data.files import file_problem
from timepro.hints import install_extra

NETWORK_TIMEOUT_S = 20.0
"""How long an address may keep silent, at its start and later."""

_STATE_THEIR_LENGTH = ("mov", "matroska")  # FFmpeg's containers whose stated length is not an estimate
_MISSING_S = 0.1  # a stretch between two packets' times from which it is silence, not rounding
_SILENCE = 1 << 16  # samples of silence in a chunk at most
_CUT_SHORT_S = 1.0
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,matroska,mov,mp3,mpeg,mpegts,ogg,rm,tta,w64,wav,webm,wv"
)
"""What a file may be: not a playlist, which would lead to other files and addresses than the one that was named."""


@dataclass(frozen=True)
class AudioSource:
    """Where sound comes from, opened.

    Args:
        name: as the user gave it.
        rate: samples a second.
        duration: in seconds; None where it is not known, as of a live stream.
        chunks: gives the samples, float32 (N, channels); to be called once. Raises ValueError, naming the source, where
            it turns out to be damaged, falls silent for too long, or breaks off.
    """

    name: str
    rate: int
    duration: float | None
    chunks: Callable[[], Iterator[np.ndarray]]


def is_address(source: str | os.PathLike[str]) -> bool:
    """Whether a source is an address, such as rtsp://camera/1, and not a path."""
    return "://" in os.fspath(source)


def open_source(source: str | os.PathLike[str], timeout_s: float = NETWORK_TIMEOUT_S) -> AudioSource:
    """Open a file or an address.

    Args:
        timeout_s: how long an address may keep silent.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be decoded or holds no audio, or does not answer; naming it, with the reason.
    """
    name = os.fspath(source)
    if is_address(name):
        return _by_ffmpeg(name, name, timeout_s)
    path = Path(name)
    if wrong := file_problem(path):
        if wrong == "does not exist":
            raise FileNotFoundError(f"{name}: no such file; check the path")
        raise ValueError(f"{name}: {wrong}; an audio or video file is needed here")
    try:
        with soundfile.SoundFile(path):
            pass
    except (soundfile.SoundFileError, TypeError):  # TypeError: by its name, a format without a header
        return _by_ffmpeg(name, f"file:{path}", None)
    header = read_header(path)
    return AudioSource(name, header.rate, header.duration, lambda: audio_blocks(path))


def _by_ffmpeg(name: str, place: str, timeout_s: float | None) -> AudioSource:
    try:
        import av
    except ImportError:
        raise ValueError(f"{name}: only PyAV can read it; {install_extra('detect')}") from None
    av.logging.set_level(av.logging.PANIC)  # what FFmpeg has to say is in its errors, too
    options = {"rtsp_transport": "tcp", "allowed_media_types": "audio"} if place.startswith("rtsp") else {}
    if timeout_s is None:
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    begun = time.monotonic()
    try:
        container: Any = av.open(place, timeout=timeout_s and (timeout_s, timeout_s), options=options)
    except av.error.FFmpegError as error:
        late = timeout_s is not None and time.monotonic() - begun >= 0.9 * timeout_s  # rtsp calls it invalid data
        raise _unreadable(name, TimeoutError() if late else error, timeout_s) from None
    if not container.streams.audio:
        tracks = ", ".join(sorted({stream.type for stream in container.streams})) or "no tracks"
        container.close()
        raise ValueError(f"{name}: has no audio track, only {tracks}; nothing can be heard in it")
    stream = container.streams.audio[0]
    if not stream.rate:
        container.close()
        raise ValueError(f"{name}: its audio track does not say its sample rate; the file is damaged")
    duration = _stated_duration(container, stream)

    def chunks() -> Iterator[np.ndarray]:
        seconds = 0.0
        try:
            for chunk in _frames(name, container, stream):
                seconds += len(chunk) / stream.rate
                yield chunk
        except av.error.FFmpegError as error:
            raise _unreadable(name, error, timeout_s, seconds) from None
        finally:
            container.close()
        if duration is not None and seconds < duration - _CUT_SHORT_S:
            raise ValueError(f"{name}: cut short, {seconds:.1f} of {duration:.1f} s could be read; replace the file")

    return AudioSource(name, stream.rate, duration, chunks)


def _stated_duration(container: Any, stream: Any) -> float | None:
    """Seconds of the track, where the container states them."""
    if container.format.name.split(",")[0] not in _STATE_THEIR_LENGTH:
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6


def _frames(name: str, container: Any, stream: Any) -> Iterator[np.ndarray]:
    """The decoded track, (N, channels) float32, at the times that its packets state."""
    import av

    # Only the sample's type is changed here: channels and rate are the detector's to change.
    converter = av.AudioResampler(format="fltp")
    begins = (container.start_time or 0) / 1e6
    position = 0  # samples given
    for frame in container.decode(stream):
        if frame.sample_rate != stream.rate:
            raise ValueError(
                f"{name}: the sample rate changes from {stream.rate} to {frame.sample_rate} Hz after "
                f"{position / stream.rate:.1f} s; convert it to one rate first"
            )
        missing = 0 if frame.time is None else round((frame.time - begins) * stream.rate) - position
        if missing > _MISSING_S * stream.rate:
            for start in range(0, missing, _SILENCE):
                yield np.zeros((min(_SILENCE, missing - start), 1), np.float32)
            position += missing
        for converted in converter.resample(frame):
            samples = converted.to_ndarray().T
            position += len(samples)
            yield samples


def _unreadable(name: str, error: Exception, timeout_s: float | None, seconds: float = 0.0) -> ValueError:
    """What FFmpeg's error means to whoever named the source."""
    import av

    behind = f" after {seconds:.1f} s of sound" if seconds else ""
    if isinstance(error, av.error.ExitError | av.error.TimeoutError | TimeoutError):
        return ValueError(f"{name}: does not answer within {timeout_s:g} s{behind}; check the address and the network")
    reason = getattr(error, "strerror", None) or str(error)
    if timeout_s is not None:
        return ValueError(f"{name}: cannot be read{behind} ({reason}); check the address and the network")
    return ValueError(f"{name}: cannot be decoded as audio{behind} ({reason}); replace or remove the file")
