"""What a command was given on its command line, looked at before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def require_files(paths: Iterable[Path]) -> None:
    """Refuse files that do not exist.

    Raises:
        ValueError: naming the first of them.
    """
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path} {'is a folder, not a file' if path.is_dir() else 'does not exist'}")


def require_folders(paths: Iterable[Path]) -> None:
    """Refuse folders that do not exist.

    Raises:
        ValueError: naming the first of them.
    """
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder; name a run's folder, or one that holds runs")


def require_checkpoint(folder: Path) -> None:
    """Refuse a folder that is not a checkpoint.

    Raises:
        ValueError: no such folder, or one without `config.json`.
    """
    if not (folder / "config.json").is_file():
        what = "holds no config.json" if folder.is_dir() else "does not exist"
        raise ValueError(f"{folder} {what}; name a checkpoint's folder, such as runs/NAME/checkpoint")


def checkpoint_or_newest(folder: Path | None, runs: Path = Path("runs")) -> Path:
    """The checkpoint's folder that the user named, or that of the newest finished run.

    Raises:
        ValueError: not a checkpoint, or no finished run.
    """
    if folder is not None:
        require_checkpoint(folder)
        return folder
    from timepro.runs import newest_checkpoint

    return newest_checkpoint(runs)


def require_absent(path: Path) -> None:
    """Refuse to write over something.

    Raises:
        ValueError: the path exists.
    """
    if path.exists():
        raise ValueError(f"{path} exists already; give another folder, or remove it first")
