"""The folders that rollout workers may read audio from: those where it lies, wherever its manifests are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

MEDIA_VARIABLE = "TIMEPRO_MEDIA_FOLDERS"  # a JSON list, in a worker's environment
CONNECTOR = "timepro"  # the media connector that reads it (`media_connector.py`)
_MOST = 32


def media_folders(audio: Iterable[Path]) -> list[Path]:
    """The folders of audio files, links followed, none inside another.

    More than 32 are replaced by the folders above them, the deepest first.

    Raises:
        ValueError: a file lies in the root folder, all of which workers would then be let read.
    """
    of_folder: dict[str, str] = {}
    folders: set[tuple[str, ...]] = set()
    for path in audio:
        text = os.fspath(path)
        if os.path.islink(text):
            folder = os.path.dirname(os.path.realpath(text))
        else:
            above = os.path.dirname(text)
            if above not in of_folder:  # resolving a path asks for every folder on the way
                of_folder[above] = os.path.realpath(above)
            folder = of_folder[above]
        if folder == os.sep:
            raise ValueError(
                f"{path} lies in the root folder, and workers are not let read all of this machine; move it to a folder"
            )
        folders.add(Path(folder).parts)
    folders = _outermost(folders)
    while len(folders) > _MOST and (deepest := max(map(len, folders))) > 2:
        folders = _outermost({parts[: deepest - 1] if len(parts) == deepest else parts for parts in folders})
    return [Path(*parts) for parts in sorted(folders)]


def _outermost(folders: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    return {parts for parts in folders if not any(parts[:n] in folders for n in range(1, len(parts)))}
