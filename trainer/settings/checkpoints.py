"""When checkpoints are written and which ones stay: `sft.checkpoints.*`, `grpo.checkpoints.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from timepro.config.marks import Count, Formerly, Natural

ON_FAILURE = ("continue", "stop")


@dataclass
class CheckpointsConfig:
    """Resumable checkpoints of one training."""

    save_every: Natural = 0  # steps between checkpoints; 0: at the end and on a signal
    # The newest; an older one serves where the newest is damaged.
    keep: Annotated[Count, Formerly("keep_checkpoints")] = 2
    # Or "stop": what follows when a checkpoint cannot be written.
    on_failure: Annotated[str, Formerly("on_save_failure")] = "continue"

    def check(self, where: str) -> None:
        """Raises ValueError, with `where` before the key's name."""
        if self.keep < 1:
            raise ValueError(f"{where}.keep is {self.keep}; at least the newest must stay")
        if self.on_failure not in ON_FAILURE:
            raise ValueError(f"{where}.on_failure is {self.on_failure!r}; it must be {' or '.join(ON_FAILURE)}")
