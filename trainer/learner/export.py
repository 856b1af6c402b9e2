"""The trained weights as a checkpoint folder that transformers, vLLM and this project load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from torch import Tensor

from timepro.names import CARD, MODEL_CARD
from trainer.learner.merging import Narrowing


def export_checkpoint(
    source: Path, target: Path, changed: dict[str, Tensor], narrowing: Narrowing | None = None
) -> None:
    """Copy a checkpoint folder with some tensors replaced, one weight file at a time, complete or not at all.

    The source's card stays behind: the new weights get one of their own at the end of the run.

    Args:
        narrowing: puts changed tensors into the files' type, and measures what that costs.

    Raises:
        ValueError: a changed tensor that no weight file of the source holds, or one of another shape.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    narrowing = narrowing or Narrowing()
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    left = dict(changed)
    for path in sorted(source.iterdir()):
        if path.suffix != ".safetensors":
            if path.is_file() and path.name not in (CARD, MODEL_CARD):
                shutil.copy2(path, partial / path.name)
            continue
        with safe_open(str(path), framework="pt") as weights:
            tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 - no mapping
            metadata = weights.metadata()
        for name, old in tensors.items():
            if name in left:
                new = left.pop(name)
                if new.shape != old.shape:
                    raise ValueError(f"{path}: {name} is {tuple(old.shape)}, the trained tensor {tuple(new.shape)}")
                tensors[name] = narrowing(name, new, old).contiguous()
        save_file(tensors, partial / path.name, metadata=metadata)
    if left:
        raise ValueError(
            f"{source} holds no tensors named {', '.join(sorted(left)[:3])}; it is not the model trained here"
        )
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
