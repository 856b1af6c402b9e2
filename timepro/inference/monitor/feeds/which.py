"""Which kind of source a word names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path

from timepro.inference.monitor.feeds.base import Source
from timepro.inference.monitor.feeds.decoded import Decoded, StandardInput, microphone
from timepro.inference.monitor.feeds.folder import Folder
from timepro.inference.monitor.messages import without_password
from timepro.inference.monitor.settings import Stream

_SCHEMES = ("rtsp", "rtsps", "http", "https")


def source_kind(text: str) -> str:
    """`address`, `microphone`, `pipe` or `folder`.

    Raises:
        ValueError: none of them, with what there is.
    """
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in _SCHEMES:
        return "address"
    if text == "mic" or text.startswith("mic:"):
        return "microphone"
    if text == "-":
        return "pipe"
    if text and Path(text).is_dir():
        return "folder"
    kinds = "rtsp://, http:// or https:// addresses, mic, mic:DEVICE, - for standard input, or a folder"
    if text and Path(text).exists():
        raise ValueError(f"source {text!r} is a file; timepro detect reads files. A monitor listens to {kinds}")
    raise ValueError(f"source {text!r} is nothing that a monitor can listen to; sources: {kinds}")


def open_source(text: str, settings: Stream, zone: tzinfo | None, done: set[str], say: Callable[[str], None]) -> Source:
    """The source that a word names; nothing is opened yet.

    Args:
        text: see `source_kind`.
        settings: of the stream.
        zone: time zone of a folder's names.
        done: names of a folder's files that were listened to before.
        say: takes lines for the user.

    Raises:
        ValueError: no such source.
    """
    kind = source_kind(text)
    if kind == "folder":
        return Folder(Path(text), zone, settings.settle_s, done, say)
    if kind == "microphone":
        return microphone(text.partition(":")[2], settings.lost_after_s)
    if kind == "pipe":
        raw = {"sample_rate": str(settings.rate), "ch_layout": f"{settings.channels}c"} if settings.rate else {}
        form = "s16le" if settings.rate else None
        return Decoded(
            StandardInput(), "standard input", form, raw, settings.lost_after_s, comes_back=False, live=False
        )
    options = {"rtsp_transport": "tcp"} if text.lower().startswith("rtsp") else {}
    return Decoded(text, without_password(text), None, options, settings.lost_after_s)
