"""When checkpoints are written and which ones stay: `sft.checkpoints.*`, `grpo.checkpoints.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Count, Natural

ON_FAILURE = ("continue", "stop")


@dataclass
class CheckpointsConfig:
    """Resumable checkpoints of one training."""

    save_every: Natural = 0  # steps between checkpoints; 0: at the end and on a signal
    keep: Count = 2  # the newest; an older one serves where the newest is damaged
    on_failure: str = "continue"  # or "stop": what follows when a checkpoint cannot be written

    def check(self, where: str) -> None:
        """Raises ValueError, with `where` before the key's name."""
        if self.keep < 1:
            raise ValueError(f"{where}.keep is {self.keep}; at least the newest must stay")
        if self.on_failure not in ON_FAILURE:
            raise ValueError(f"{where}.on_failure is {self.on_failure!r}; it must be {' or '.join(ON_FAILURE)}")
