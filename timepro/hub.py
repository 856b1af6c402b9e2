"""Checkpoints by folder or by their name on a model hub; nothing heavy is imported before something is fetched."""

from __future__ import annotations

from pathlib import Path


def fetch(name: str, revision: str | None) -> Path:
    """A folder as it is, or a hub repository's files, fetched into the hub's own cache.

    Raises:
        ValueError: neither a folder nor a repository that can be had.
    """
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise ValueError(f"{name} is neither a folder nor a hub name such as Qwen/Qwen2.5-Omni-7B")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=["*.bin", "*.pt", "*.gguf"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"cannot fetch {name} from the hub: {reason}; or give the folder of a downloaded copy"
        ) from None
