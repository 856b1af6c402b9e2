"""How a worker opens audio files: below any of the run's audio folders (vLLM's own connector knows a single one)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from urllib3.util import parse_url
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector

from rollout.media import CONNECTOR, MEDIA_VARIABLE


@MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)
class FoldersConnector(MediaConnector):
    """vLLM's connector, with several folders for local files. A link counts as what it leads to."""

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        return super(FoldersConnector, self._for(url)).load_from_url(url, media_io, fetch_timeout=fetch_timeout)

    async def load_from_url_async(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        connector: Any = super(FoldersConnector, self._for(url))
        return await connector.load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)

    def _for(self, url: str) -> FoldersConnector:
        """A connector for one URL: where it names a file, with the folder that the file is in."""
        folders = json.loads(os.environ[MEDIA_VARIABLE])
        if not folders and url[:5].lower() != "data:":
            raise ValueError(
                "this server opens no file and no address for those who ask; send the audio itself, as input_audio or "
                "as an audio_url that begins with data:"
            )
        if url[:5].lower() != "file:":
            return self
        path = Path(url2pathname(parse_url(url).path or ""))
        resolved = path.resolve()
        for folder in folders:
            if Path(folder) in resolved.parents:
                return FoldersConnector(
                    self.media_io_kwargs, self.connection, allowed_local_media_path=folder,
                    allowed_media_domains=self.allowed_media_domains,
                )  # fmt: skip
        where = str(path) if resolved == path else f"{path} (which leads to {resolved})"
        raise ValueError(
            f"{where} is in none of the folders that this worker may read: {', '.join(folders)}. They are those of the "
            "manifests' audio when the run was started; start it again if files or links have moved"
        )
