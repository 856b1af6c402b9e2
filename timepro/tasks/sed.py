"""Sound event detection: every event of a closed set of classes."""

from __future__ import annotations

from timepro.tasks.base import MENDED, PRECISION, RECALL, UNPARSABLE, Column, Task


class SoundEventDetection(Task):
    """Every event of the clip, with its class."""

    name = "sed"
    asks = "Detect the sound events with their start and end times."
    labels = "classes"
    columns = (
        Column("eb_f1_micro", "Eb-F1 micro"), Column("eb_f1_macro", "Eb-F1 macro"), Column("miou", "mIoU"),
        PRECISION, RECALL, UNPARSABLE, MENDED,
    )  # fmt: skip
