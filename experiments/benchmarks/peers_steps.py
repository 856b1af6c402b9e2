"""The clock of a peer's trainer: both are transformers' `Trainer` underneath, and take its callbacks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class StepClock(TrainerCallback):
    """Writes when training began, when each step ended, and its reward and answer length.

    Args:
        path: of the JSON file, written at the end.
        seconds: of training, after which it stops.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self.found: dict[str, Any] = {"ends": [], "rewards": [], "tokens": []}
        self._encoded = {"sampling": 0, "training": 0}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """The first step comes next."""
        for name, module in model.named_modules():
            if name.endswith("audio_tower"):
                module.register_forward_hook(self._count)
        self.found["began"] = time.time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An optimiser step is done."""
        self.found["ends"].append(time.time())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """The trainer logs each step, and once more at the end."""
        if not logs or "reward" not in logs:
            return
        self.found["rewards"].append(float(logs["reward"]))
        self.found["tokens"].append(float(logs["completions/mean_length"]))
        if time.time() - self.found["began"] > self._seconds:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what was seen."""
        self.found["encoder_calls"] = self._encoded
        self._path.write_text(json.dumps(self.found), encoding="utf-8")

    def _count(self, *_: Any) -> None:
        import torch

        self._encoded["training" if torch.is_grad_enabled() else "sampling"] += 1
