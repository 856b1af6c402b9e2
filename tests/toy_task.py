"""A task of a user's own, written into a folder outside the repository: when does a clip's first sound occur?"""

from __future__ import annotations

from pathlib import Path

NAME = "first"
SOURCE = """
import numpy as np

from timepro.events import Event
from timepro.tasks import Column, Task


class FirstSound(Task):
    name = "first"
    asks = "When does the first sound occur?"
    labels = "none"
    main_metric = "hit"
    columns = (Column("hit", "hits", ".1%"), Column("miou", "mIoU"))

    def events(self, clip, times):
        return [Event(e.onset, e.offset, "") for e in super().events(clip, times)[:1]]

    def metrics(self, references, answers):
        return super().metrics(references, answers) | {"hit": float(self.counts(references, answers)[:, 0].mean())}

    def counts(self, references, answers):
        hits = [
            bool(a.events) == bool(r) and all(abs(x.onset - y.onset) <= 0.2 for x, y in zip(r, a.events))
            for r, a in zip(references, answers, strict=True)
        ]
        return np.stack([np.array(hits, float), np.ones(len(hits)), np.ones(len(hits))], axis=1)
"""


def write(folder: Path, module: str) -> str:
    """Write the module; returns the task's import path, for whoever has the folder on its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(SOURCE)
    return f"{module}:FirstSound"
