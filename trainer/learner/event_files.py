"""Metrics as TensorBoard's event files, beside W&B: `wandb.tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class EventFiles:
    """Writes a job's numbers where `tensorboard --logdir RUN/tensorboard` finds them.

    Args:
        folder: of the job's event files; those of a resumed job lie beside them.
        step: the last one that counts of what is there already: TensorBoard leaves out what was recorded behind it.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what waits, and close."""
        self._writer.close()
