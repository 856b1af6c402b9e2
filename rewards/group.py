"""What a reward sees: the completions of one prompt, with the events that were read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.tasks import find_task


@dataclass(frozen=True)
class Completion:
    """One sampled answer. truncated: cut off by the token limit; n_tokens: its length in tokens."""

    text: str
    answer: ParsedAnswer
    truncated: bool
    n_tokens: int


@dataclass(frozen=True)
class Group:
    """The G completions of one prompt. task: its short name; duration in seconds.

    labels_are_classes: as the task says (`timepro.tasks.Task`), unless given.
    parts: filled while the group is scored, name of a reward -> its values (G,), for logging.
    skipped: likewise, name of a reward -> position of a completion that it gave up on -> why; those leave the group.
    """

    reference: tuple[Event, ...]
    completions: tuple[Completion, ...]
    task: str
    duration: float
    clip_id: str
    parts: dict[str, np.ndarray] = field(default_factory=dict, compare=False)
    skipped: dict[str, dict[int, str]] = field(default_factory=dict, compare=False)
    labels_are_classes: bool | None = None

    def __post_init__(self) -> None:
        if self.labels_are_classes is None:  # looked up here, so that a reward's worker process need not know the task
            object.__setattr__(self, "labels_are_classes", find_task(self.task).labels_are_classes)

    def only(self, positions: Sequence[int]) -> Group:
        """A group of some of the completions, with nothing recorded."""
        return replace(self, completions=tuple(self.completions[i] for i in positions), parts={}, skipped={})

    def uses_labels(self, setting: bool | None) -> bool:
        """Whether labels must match. None asks the task: they must where they are a closed set of classes."""
        return bool(self.labels_are_classes) if setting is None else setting


@runtime_checkable
class Reward(Protocol):
    """The contract: a whole group in, one finite float64 a completion out, shape (G,), in the group's order.

    A reward that loads something large does so in a method ``start()``, which is called once in the process that
    scores, before the first group; a slow reward is also created, but never started, in the learner.
    """

    def __call__(self, group: Group) -> np.ndarray: ...
