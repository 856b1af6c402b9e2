"""Take a trained base into the package: `python -m timepro.ship_base RUN MANIFEST`, after `make train EXP=tiny_base`.

Weights are stored as bfloat16. The card of the run stays beside them and says how the base was made; what it tells of
times before it has learnt any, on the clips of MANIFEST, is measured here and added.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from timepro.card import read_card
from timepro.evaluation import score
from timepro.inference.model import load
from timepro.names import MODEL_CARD
from timepro.tasks.samples import evaluation_samples
from timepro.tiny.base import FOLDER, build_on_base
from timepro.tiny.config import TinyModelConfig

_ZERO_SHOT = """
## What it cannot do

It does not know when. It has no timestamp tokens and was never taught a time. With timestamps added and without any
training, asked to detect events ({} clips, greedy answers, zero-shot): Eb-F1 {:.3f}. It knows the eight classes of this
project's own synthetic soundscapes and nothing of real recordings. What it can do beyond hearing is small: see the rows
of `compare` and `read` above, and those of `caption`, which ask for one of three wordings word for word.
"""
MOST_MB = 12.0
"""Of all shipped checkpoints together: they are part of every clone and of every installation."""


def ship(run: Path, manifest: Path) -> Path:
    """Copy `run/checkpoint` to where `timepro.tiny.base` looks for its family, and measure it.

    Args:
        manifest: clips that the run was not trained on.

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
    with (target / MODEL_CARD).open("a", encoding="utf-8") as readme:
        readme.write(_ZERO_SHOT.format(*_zero_shot(card.family, manifest)))
    return target


def _zero_shot(family: str, manifest: Path) -> tuple[int, float]:
    """Clips, and event-based F1 of greedy answers to the detection question, with timestamps but without training."""
    config = TinyModelConfig(from_scratch=False, family=family, answer_style="timestamps", astp_every=5)
    samples = evaluation_samples(manifest, "sed")
    with tempfile.TemporaryDirectory() as folder:
        build_on_base(Path(folder) / "checkpoint", config)
        model = load(Path(folder) / "checkpoint")
        texts = [model.answer(sample.audio, sample.question, max_tokens=20).text for sample in samples]
    return len(samples), score(samples, texts).main()["sed"]


def _halve(path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone, and a package is for everybody


def main(arguments: list[str]) -> int:
    """Ship a run; returns 1 where nothing is, or where the shipped folders have become too large."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 1
    target = ship(Path(arguments[0]), Path(arguments[1]))
    print(f"{target}: {_megabytes(target):.1f} MB")
    if (total := _megabytes(FOLDER)) > MOST_MB:
        print(f"{FOLDER}: {total:.1f} MB, more than {MOST_MB:.0f}; make the models smaller", file=sys.stderr)
        return 1
    return 0


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
