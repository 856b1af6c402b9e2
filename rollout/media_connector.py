"""How a worker opens audio files: below any of the run's audio folders (vLLM's own connector knows a single one)."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from urllib3.util import parse_url
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from vllm.multimodal.media.connector import global_thread_pool

from rollout.clip_features import FileClip
from rollout.media import CONNECTOR, MEDIA_VARIABLE
from timepro.data.files import file_problem


@MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)
class FoldersConnector(MediaConnector):
    """vLLM's connector, with several folders for local files, which are not read here (`FileClip`).

    A link counts as what it leads to.
    """

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        if _is_file(url):
            return _file_clip(url)
        return super().load_from_url(url, media_io, fetch_timeout=fetch_timeout)

    async def load_from_url_async(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        if _is_file(url):
            return await asyncio.get_running_loop().run_in_executor(global_thread_pool, _file_clip, url)
        return await super().load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)


def _is_file(url: str) -> bool:
    """Whether a URL names a file of this machine.

    Raises:
        ValueError: one that does not bring the sound along, where nothing else may be opened.
    """
    if url[:5].lower() != "data:" and not _folders():
        raise ValueError(
            "this server opens no file and no address for those who ask; send the audio itself, as input_audio or "
            "as an audio_url that begins with data:"
        )
    return url[:5].lower() == "file:"


def _folders() -> list[str]:
    """Those that this worker may read."""
    return list(json.loads(os.environ[MEDIA_VARIABLE]))


def _file_clip(url: str) -> FileClip:
    """The clip of a file's URL. Raises ValueError for one that is not there, or in no folder that may be read."""
    path, folders = Path(url2pathname(parse_url(url).path or "")), _folders()
    resolved = path.resolve()
    if not any(Path(folder) in resolved.parents for folder in folders):
        where = str(path) if resolved == path else f"{path} (which leads to {resolved})"
        raise ValueError(
            f"{where} is in none of the folders that this worker may read: {', '.join(folders)}. They are those of the "
            "manifests' audio when the run was started; start it again if files or links have moved"
        )
    if wrong := file_problem(path):
        raise ValueError(f"{path}: {wrong}; an audio file is needed here")
    return FileClip.of(path)
