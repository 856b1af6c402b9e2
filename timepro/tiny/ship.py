"""Take a trained base into the package: `python -m timepro.tiny.ship RUN [RUN ...]`, after `make train EXP=tiny_base`.

Weights are stored as bfloat16. The card of the run stays beside them, so that the folder says how it was made.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from timepro.card import read_card
from timepro.tiny.base import FOLDER

MOST_MB = 12.0
"""Of all shipped checkpoints together: they are part of every clone and of every installation."""


def ship(run: Path) -> Path:
    """Copy `run/checkpoint` to where `timepro.tiny.base` looks for its family.

    Returns:
        the folder in the package.

    Raises:
        ValueError: the run has no checkpoint with a card, or one with timestamps.
    """
    source = run / "checkpoint"
    card = read_card(source) if source.is_dir() else None
    if card is None:
        raise ValueError(f"{source} is no finished checkpoint with a card; make it with make train EXP=tiny_base")
    if not card.settings["model"]["tiny"]["published"]:
        raise ValueError(f"{source} has timestamps already; a base comes without: model.tiny.published=true")
    target = FOLDER / card.family
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    for path in target.glob("*.safetensors"):
        _halve(path)
    return target


def _halve(path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone, and a package is for everybody


def main(arguments: list[str]) -> int:
    """Ship each run named; returns 1 where nothing is, or where the folders have become too large."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 1
    for argument in arguments:
        target = ship(Path(argument))
        print(f"{target}: {_megabytes(target):.1f} MB")
    if (total := _megabytes(FOLDER)) > MOST_MB:
        print(f"{FOLDER}: {total:.1f} MB, more than {MOST_MB:.0f}; make the models smaller", file=sys.stderr)
        return 1
    return 0


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
