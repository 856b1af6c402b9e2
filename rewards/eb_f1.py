"""The main reward: event-based F1 of one answer."""

from __future__ import annotations

import numpy as np

from rewards.group import Group
from rewards.registry import register
from timepro.metrics.event_based import group_event_f1


@register("eb_f1")
class EventF1:
    """Micro Eb-F1 of each completion, in [0, 1]; unparsable: 0. Collars and tolerance in seconds.

    The tolerance lets a boundary exactly at the collar count: times lie on a grid, so without it floating point
    rounding would decide about half of these cases. use_label: None asks the task (detection: yes, others: no).

    count_unread: what is left out in reading, such as an event without its end, counts as a wrong event each. Else it
    costs nothing, and a policy learns to end its answer with half of an event where it doubts the event.
    """

    def __init__(
        self,
        onset_collar: float = 0.2,
        offset_collar: float = 0.2,
        offset_ratio: float = 0.2,
        tolerance: float = 1e-6,
        use_label: bool | None = None,
        count_unread: bool = False,
    ) -> None:
        self.settings = {
            "onset_collar": onset_collar,
            "offset_collar": offset_collar,
            "offset_ratio": offset_ratio,
            "tolerance": tolerance,
        }
        for key, value in self.settings.items():
            if not value >= 0:
                raise ValueError(f"{key} must be >= 0, got {value}")
        self.use_label = use_label
        self.count_unread = count_unread

    def __call__(self, group: Group) -> np.ndarray:
        answers = [completion.answer for completion in group.completions]
        usable = np.array([answer.ok for answer in answers])
        use_label = group.uses_labels(self.use_label)
        scores = usable * group_event_f1(
            group.reference, [answer.events for answer in answers], **self.settings, use_label=use_label
        )
        return scores * share_read(group) if self.count_unread else scores


def share_read(group: Group) -> np.ndarray:
    """What F1 = 2 TP / (reference + estimated) is to be multiplied by for unread parts to count as estimated events."""
    answers = [completion.answer for completion in group.completions]
    counted = np.array([len(group.reference) + len(answer.events) for answer in answers])
    unread = np.array([answer.unread for answer in answers])
    return np.divide(counted, counted + unread, out=np.ones(len(answers)), where=unread > 0)
