"""Sound through PyAV: network addresses, input devices, standard input, files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from timepro.hints import install_extra
from timepro.inference.monitor.feeds.base import Item, Opened, Sound, SourceError

_MOST_BROKEN_PACKETS = 100  # one behind the other; then it is no sound
_DEVICES = ("pulse", "alsa", "avfoundation", "dshow")  # FFmpeg's input devices, the likeliest first


@dataclass
class Decoded:
    """Anything that FFmpeg opens.

    Args:
        target: address, device or file; a file-like object for standard input.
        shown: what it is called in messages.
        format: of the target; None to find out.
        options: FFmpeg's.
        timeout_s: of opening, and of each wait for sound.
        comes_back: see `Source`.
        live: see `Opened`; None where a known length says that it is a recording.
    """

    target: Any
    shown: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    comes_back: bool = True
    live: bool | None = None
    is_folder: bool = False

    def items(self, rate: int, stop: threading.Event) -> Iterator[Item]:
        """See `Source`."""
        av = av_module()
        try:
            with av.open(
                self.target, format=self.format, options=self.options, timeout=(self.timeout_s, self.timeout_s)
            ) as container:
                if not container.streams.audio:
                    raise SourceError(f"{self.shown} has no audio track")
                is_recording = container.duration is not None
                if self.live is None and is_recording:
                    self.comes_back = False
                yield Opened(live=not is_recording if self.live is None else self.live)
                for samples in decoded(container, rate, self.shown):
                    if stop.is_set():
                        return
                    yield Sound(samples, time.monotonic())
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"{self.shown}: {_words(error)}") from error


def decoded(container: Any, rate: int, shown: str) -> Iterator[np.ndarray]:
    """The samples (N,) of a container's first audio track, mono at `rate`; single broken packets are left out.

    Raises:
        SourceError: nothing but broken packets.
    """
    av = av_module()
    resampler, broken = av.AudioResampler("flt", "mono", rate), 0
    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
            broken = 0
        except av.error.InvalidDataError as error:
            broken += 1
            if broken > _MOST_BROKEN_PACKETS:
                raise SourceError(f"{shown}: what comes cannot be decoded ({_words(error)})") from error
            continue
        for frame in frames:
            frame.pts = None  # packets that were lost leave holes in the times, which the resampler would refuse
            for out in resampler.resample(frame):
                samples = out.to_ndarray().reshape(-1)
                yield (
                    samples if np.isfinite(samples).all() else np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
                )
    for out in resampler.resample(None):
        yield out.to_ndarray().reshape(-1)


class StandardInput:
    """Standard input as PyAV reads it: what there is, without waiting for a full buffer."""

    def read(self, count: int) -> bytes:
        """At most so many bytes; none at the end."""
        return os.read(0, count)


def microphone(device: str, timeout_s: float) -> Decoded:
    """An input device.

    Args:
        device: as the system calls it; empty for its default.
        timeout_s: of opening, and of each wait for sound.

    Raises:
        SourceError: this build of FFmpeg knows none of the systems for input.
    """
    known = [name for name in _DEVICES if name in av_module().formats_available]
    if not known:
        raise SourceError(f"microphone: PyAV here was built without input devices ({', '.join(_DEVICES)})")
    system, _, rest = device.partition(":")
    chosen, name = (system, rest) if system in known else (known[0], device)
    shown = f"microphone {name or 'default'} ({chosen})"
    return Decoded(name or "default", shown, chosen, {}, timeout_s, live=True)


def av_module() -> Any:
    """PyAV.

    Raises:
        SourceError: it is not installed, with what to type.
    """
    try:
        import av
        import av.error
    except ImportError as error:
        raise SourceError(f"streams need the package av; {install_extra('detect')}") from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's own lines would stand between ours, one a broken packet
    return av


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
