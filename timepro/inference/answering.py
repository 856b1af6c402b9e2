"""A model's answers to windows, as events with a confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timepro.inference.detections import ConfidenceKind, Detection
from timepro.inference.model import Model

WINDOW_S = 10.0


class ModelAnswerer:
    """Asks a checkpoint in this process. See `timepro.inference.session.WindowAnswerer`."""

    def __init__(self, model: Model, *, task: str | None = None, query: str | None = None, samples: int = 0) -> None:
        self._model = model
        self._question, self._query = model.question(None, task, query), query or ""
        self.sample_rate = int(model.processor.extractor.sampling_rate)
        self.window_s = WINDOW_S
        self.kind: ConfidenceKind | None = None

    def answer(self, windows: Sequence[np.ndarray]) -> list[list[Detection]]:
        """The events of each window; those of a query have its words as their label."""
        return [
            [Detection(e.onset, e.offset, e.label or self._query) for e in self._model.answer(w, self._question).events]
            for w in windows
        ]
