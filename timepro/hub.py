"""Checkpoints from and to a model hub; nothing heavy is imported before something is fetched or sent."""

from __future__ import annotations

from pathlib import Path

from timepro.hints import tool
from timepro.names import CARD

NOT_PUSHED = ("adapter/*",)
"""Files that stay here: an adapter names its base by a folder of this machine, and the weights have it merged in."""


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


def push(folder: Path, repository: str, private: bool = True) -> str:
    """Upload a checkpoint folder to the hub, by the hub's own client, into a repository that is made where needed.

    Returns:
        the repository's address.

    Raises:
        ValueError: no card, a name that is not one of the hub, nobody logged in, offline, or a refusal of the hub.
    """
    if not (folder / CARD).is_file():
        raise ValueError(
            f"{folder} holds no {CARD}, which says what the checkpoint is; a run writes it into checkpoint/ at its end"
        )
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"{repository!r} is not a repository's name, OWNER/NAME")
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.is_offline_mode():
        raise ValueError("HF_HUB_OFFLINE is set, so the hub is not asked; unset it to upload")
    if not huggingface_hub.get_token():
        raise ValueError(f"nobody is logged in to the hub; run {tool('hf')} auth login, or set HF_TOKEN")
    client = huggingface_hub.HfApi()
    try:
        client.create_repo(repository, private=private, exist_ok=True)
        client.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Add a checkpoint", ignore_patterns=list(NOT_PUSHED)
        )
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"the hub has not taken {folder} as {repository}: {reason}") from None
    return f"{constants.ENDPOINT}/{repository}"
