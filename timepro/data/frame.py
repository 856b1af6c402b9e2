"""A manifest as a pandas DataFrame."""

from __future__ import annotations

import os
from typing import Any

from timepro.data.manifest import read_manifest
from timepro.hints import install


def dataframe(manifest: str | os.PathLike[str], check_audio: bool = False) -> Any:
    """A manifest's events as a `pandas.DataFrame`, a row an event.

    Columns: id, audio, duration, split, onset, offset, label, caption, annotated_onset, annotated_offset; times in
    seconds. A clip without events has one row, with missing values behind `split`. Queries are not in it: they are in
    `timepro.read_manifest(path)`.

    Args:
        check_audio: refuse clips whose audio file is missing.

    Raises:
        ModuleNotFoundError: pandas is not installed, with what to type.
        FileNotFoundError, ValueError: the manifest is missing or cannot be read, by file, line and key.
    """
    try:
        import pandas
    except ImportError:
        raise ModuleNotFoundError(f"a DataFrame needs pandas; install it with: {install('pandas')}") from None
    rows = []
    for clip in read_manifest(manifest, check_audio):
        about = {"id": clip.id, "audio": str(clip.audio), "duration": clip.duration, "split": clip.split}
        rows += [
            about | {name: getattr(event, name) for name in _OF_EVENTS} for event in clip.events
        ] or [about]  # fmt: skip
    return pandas.DataFrame(rows, columns=["id", "audio", "duration", "split", *_OF_EVENTS])


_OF_EVENTS = ("onset", "offset", "label", "caption", "annotated_onset", "annotated_offset")
