"""Whether a confidence can be believed, and from which one on events are right often enough.

An event is right where the maximum matching of Eb-F1 grows as the events of a clip are taken one by one, the surest
first. So the number of right events above any threshold is the number of true positives that Eb-F1 counts for the
events that are left there.

Expected calibration error: Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
binning", 2015. Reliability diagrams: DeGroot and Fienberg, 1983.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from timepro.events import Event
from timepro.metrics.event_based import EventReference

BINS = 10
MIN_EVENTS = 20
"""Events of a label below which its threshold would be a matter of chance: it takes that of all labels together."""


class Sure(Protocol):
    """An event with a confidence of 0 to 1, such as `timepro.inference.detections.Detection`."""

    @property
    def label(self) -> str: ...

    @property
    def confidence(self) -> float | None: ...

    @property
    def event(self) -> Event: ...


@dataclass(frozen=True)
class Judged:
    """Events beside the truth, whatever their confidence.

    Args:
        label: of each of the N events.
        confidence: (N,) from 0 to 1.
        right: (N,) booleans.
        references: events that are there, by label.
    """

    label: tuple[str, ...]
    confidence: np.ndarray
    right: np.ndarray
    references: dict[str, int]

    def of(self, label: str) -> Judged:
        """The events of one label."""
        own = np.array([other == label for other in self.label], bool)
        names = (label,) * int(own.sum())
        return Judged(names, self.confidence[own], self.right[own], {label: self.references.get(label, 0)})

    @property
    def labels(self) -> list[str]:
        """All labels, of events and of references, in order."""
        return sorted({*self.label, *self.references})


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: B bins of equal width over 0 to 1.

    Args:
        count: (B,) events in each.
        confidence: (B,) their mean confidence, NaN where there is none.
        right: (B,) the share of them that is right, NaN where there is none.
    """

    count: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over all events of |share right - confidence| of their bin."""
        full = self.count > 0
        if not full.any():
            return float("nan")
        gaps = np.abs(self.right - self.confidence)[full]
        return float(np.average(gaps, weights=self.count[full]))


@dataclass(frozen=True, slots=True)
class Chosen:
    """A threshold and what it does on the data that it was chosen on.

    Args:
        threshold: events of at least this confidence are kept.
        precision: the share of them that is right; NaN where none is kept.
        recall: the share of the references that they find; NaN where there are none.
        kept: how many they are.
        reached: the wanted precision.
    """

    threshold: float
    precision: float
    recall: float
    kept: int
    reached: bool


def judged(references: Sequence[Iterable[Event]], estimates: Sequence[Sequence[Sure]], **settings: Any) -> Judged:
    """Events beside the truth, clip by clip; ``references[i]`` and ``estimates[i]`` belong to the same clip.

    Args:
        settings: collars, as in `EventReference`.

    Raises:
        ValueError: a different number of clips, or an event without a confidence.
    """
    labels: list[str] = []
    confidences: list[float] = []
    right: list[bool] = []
    there: dict[str, int] = {}
    for reference, found in zip(references, estimates, strict=True):
        prepared = EventReference(reference, **settings)
        for event in prepared.events:
            there[event.label] = there.get(event.label, 0) + 1
        if without := [estimate for estimate in found if estimate.confidence is None]:
            raise ValueError(f"the event {without[0].event} has no confidence; there is nothing to calibrate")
        surest = sorted(found, key=lambda estimate: -(estimate.confidence or 0.0))
        kept: list[Event] = []
        hits = 0
        for estimate in surest:
            kept.append(estimate.event)
            now = len(prepared.hits(kept))
            labels.append(estimate.label)
            confidences.append(float(estimate.confidence or 0.0))
            right.append(now > hits)
            hits = now
    return Judged(tuple(labels), np.array(confidences, float), np.array(right, bool), there)


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """How often events are right, by their confidence; the last bin holds 1, too.

    Args:
        confidence: (N,) from 0 to 1.
        right: (N,) booleans.
    """
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(at, minlength=bins)
    sums = [np.bincount(at, weights=values.astype(float), minlength=bins) for values in (confidence, right)]
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums]
    return Reliability(count, *means)


def choose(found: Judged, precision: float) -> Chosen:
    """The threshold with the highest recall among those whose precision is at least the wanted one.

    Where no threshold reaches it, the one of the highest precision. It is in the middle between the confidences of the
    last event kept and the first one left out, or 0 where all are kept.
    """
    references = sum(found.references.values())
    if not len(found.confidence):
        return Chosen(1.0, float("nan"), 0.0 if references else float("nan"), 0, False)
    order = np.argsort(-found.confidence, kind="stable")
    confidence, right = found.confidence[order], np.cumsum(found.right[order])
    # Events that are equally sure stay together.
    ends = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))
    precisions = right[ends] / (ends + 1)
    fitting = np.flatnonzero(precisions >= precision)
    # The last that fits keeps the most; without any, the last of the most precise ones does.
    best = fitting[-1] if len(fitting) else np.flatnonzero(precisions == precisions.max())[-1]
    end = ends[best]
    threshold = float((confidence[end] + confidence[end + 1]) / 2) if end + 1 < len(confidence) else 0.0
    recall = float(right[end] / references) if references else float("nan")
    return Chosen(threshold, float(precisions[best]), recall, int(end) + 1, bool(len(fitting)))


def choose_by_label(found: Judged, precision: float) -> tuple[Chosen, dict[str, Chosen]]:
    """A threshold for all labels together, and those of labels with at least `MIN_EVENTS` events."""
    own = {label: found.of(label) for label in found.labels}
    return choose(found, precision), {
        label: choose(part, precision) for label, part in own.items() if len(part.label) >= MIN_EVENTS
    }
