"""Detection behind a text: what a token's place in the prompt says of its time, it says no more.

The clip stands behind a text of random length, in training as in tests. A model that tells time by counting tokens must
then count from the clip's start; one that reads timestamps need not. Name the task by its import path,
`timepro.tasks.behind_text:DetectionBehindText`.
"""

from __future__ import annotations

import random
from dataclasses import replace

from timepro.data.clips import Clip
from timepro.tasks.base import Sample, Times
from timepro.tasks.sed import SoundEventDetection

_TEXT = (
    "this was recorded on a quiet morning by somebody who walked along the road and did not say what there is to hear "
    "so please listen to all of it before you answer"
)
_MOST_WORDS = 60


def front_text(name: str) -> str:
    """A text of 1 to 60 words that says nothing, drawn from a sample's name: a sample always has the same one."""
    drawing = random.Random(name)
    return " ".join(drawing.choices(_TEXT.split(), k=drawing.randint(1, _MOST_WORDS))) + ".\n"


class DetectionBehindText(SoundEventDetection):
    """`sed` with a text of random length in front of every clip."""

    name = "sed_behind_text"

    def samples(self, clip: Clip, times: Times) -> list[Sample]:
        return [replace(sample, before=front_text(sample.id)) for sample in super().samples(clip, times)]

    def prompt_texts(self) -> list[str]:
        return [*super().prompt_texts(), _TEXT]
