"""METEOR of an answer's captions: the auxiliary reward of dense captioning."""

from __future__ import annotations

import numpy as np

from rewards.group import Group
from rewards.registry import register
from timepro.metrics.captions import MEASURES, clip_meteor
from timepro.metrics.meteor import Meteor


@register("meteor", slow=True, per_completion=True)
class MeteorReward:
    """METEOR 1.5 of each completion, in [0, 1]; unparsable: 0. Needs the extra `captions`.

    measure: "joined", captions in time order as one text, or "matched", the mean over pairs matched in time; see
    `timepro.metrics.captions.clip_meteor`. Slow, since a long answer that repeats itself can take METEOR seconds.
    """

    def __init__(self, measure: str = "joined") -> None:
        if measure not in MEASURES:
            raise ValueError(f"measure is {measure!r}; it must be one of {', '.join(MEASURES)}")
        self.measure = measure
        self.meteor = Meteor()

    def start(self) -> None:
        """Start the Java program, which takes seconds, before the first group's time counts."""
        self.meteor.start()

    def __call__(self, group: Group) -> np.ndarray:
        answers = [completion.answer for completion in group.completions]
        references = [group.reference] * len(answers)
        estimates = [answer.events if answer.ok else [] for answer in answers]
        usable = np.array([answer.ok for answer in answers])
        return np.array(clip_meteor(references, estimates, self.meteor, self.measure)) * usable
