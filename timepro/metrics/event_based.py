"""Event-based F1 (Eb-F1), as DCASE and `sed_eval` (``event_matching_type='optimal'``) define it.

An estimated event matches a reference event when the labels are equal, the onsets differ by at most ``onset_collar``
and the offsets by at most ``max(offset_collar, offset_ratio * reference length)``. True positives are the pairs of a
maximum bipartite matching. Differences are compared in double precision without a tolerance, as `sed_eval` does it:
on a 40 ms grid about half of the pairs exactly 0.2 s apart then fail by rounding, so callers that need "exactly at the
collar" to count (the rewards) pass a small ``tolerance`` in seconds.

Source of the definition: Mesaros, Heittola, Virtanen, "Metrics for polyphonic sound event detection", 2016.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from timepro.events import Event
from timepro.metrics.matching import maximum_matching
from timepro.metrics.scores import CorpusScores, Counts, class_totals, corpus_scores, f1_from_counts


class EventReference:
    """One clip's reference events, prepared once for any number of answers.

    A matching is searched for only where it is needed: as long as no estimated event matches two reference events,
    the reference events that are matched by any are the true positives.
    """

    def __init__(
        self,
        events: Iterable[Event],
        onset_collar: float = 0.2,
        offset_collar: float = 0.2,
        offset_ratio: float = 0.2,
        tolerance: float = 0.0,
        use_label: bool = True,
    ) -> None:
        """Collars and tolerance in seconds. With ``use_label=False`` all events are one class, named ""."""
        self.events = events = list(events)
        self._use_label = use_label
        self._onset_limit = onset_collar + tolerance
        # label -> (onset, offset, largest offset error, position) in the order of the onsets
        self._by_label: dict[str, list[tuple[float, float, float, int]]] = {}
        for position, event in enumerate(events):
            onset, offset = event.onset, event.offset
            limit = offset_ratio * (offset - onset)
            if limit < offset_collar:
                limit = offset_collar
            row = (onset, offset, limit + tolerance, position)
            label = event.label if use_label else ""
            if label in self._by_label:
                self._by_label[label].append(row)
            else:
                self._by_label[label] = [row]
        for rows in self._by_label.values():
            if len(rows) > 1:
                rows.sort()

    def candidates(self, event: Event) -> list[int]:
        """Positions of the reference events that an estimated event matches, in the order of their onsets."""
        onset, offset, onset_limit = event.onset, event.offset, self._onset_limit
        found = []
        for ref_onset, ref_offset, offset_limit, position in self._by_label.get(
            event.label if self._use_label else "", ()
        ):
            late = onset - ref_onset
            if late < -onset_limit:
                break  # the rows behind this one begin later still
            if late <= onset_limit and -offset_limit <= ref_offset - offset <= offset_limit:
                found.append(position)
        return found

    def hits(self, estimated: Collection[Event]) -> Collection[int]:
        """Positions of the reference events that a maximum matching reaches; their number is the true positives."""
        by_label, onset_limit, use_label = self._by_label, self._onset_limit, self._use_label
        reached = set()
        for event in estimated:  # `candidates` written out: this loop is where a reward spends its time
            rows = by_label.get(event.label if use_label else "")
            if rows is None:
                continue
            onset, offset, found = event.onset, event.offset, -1
            for ref_onset, ref_offset, offset_limit, position in rows:
                late = onset - ref_onset
                if late < -onset_limit:
                    break
                if late <= onset_limit and -offset_limit <= ref_offset - offset <= offset_limit:
                    if found >= 0:
                        return self.pairs(estimated).keys()
                    found = position
            if found >= 0:
                reached.add(found)
        return reached

    def pairs(self, estimated: Collection[Event]) -> dict[int, int]:
        """A maximum matching: position of a reference event -> position of its estimated event.

        Where several matchings have the most pairs, it is the one that `sed_eval` takes.
        """
        edges = [(position, index) for index, event in enumerate(estimated) for position in self.candidates(event)]
        by_estimate: dict[int, list[int]] = {}
        for position, index in sorted(edges):
            by_estimate.setdefault(index, []).append(position)
        return maximum_matching(by_estimate)

    def counts(self, estimated: Collection[Event]) -> Counts:
        """(true positives, reference events, estimated events) of one answer."""
        return len(self.hits(estimated)), len(self.events), len(estimated)

    def class_counts(self, estimated: Collection[Event]) -> dict[str, Counts]:
        """`counts` by label, for every label of the reference or the answer."""
        hits, events = self.hits(estimated), self.events
        if not self._use_label:
            return {"": (len(hits), len(events), len(estimated))} if events or estimated else {}
        found: dict[str, int] = {}
        for event in estimated:
            found[event.label] = found.get(event.label, 0) + 1
        right: dict[str, int] = {}
        for position in hits:
            label = events[position].label
            right[label] = right.get(label, 0) + 1
        counts = {
            label: (right.get(label, 0), len(rows), found.pop(label, 0)) for label, rows in self._by_label.items()
        }
        for label, number in found.items():
            counts[label] = (0, 0, number)
        return counts


def match_counts(reference: Iterable[Event], estimated: Collection[Event], **settings: Any) -> dict[str, Counts]:
    """Counts of one clip: label -> (true positives, reference events, estimated events).

    Settings as in `EventReference`.
    """
    return EventReference(reference, **settings).class_counts(estimated)


def event_f1(reference: Iterable[Event], estimated: Collection[Event], **settings: Any) -> float:
    """Micro Eb-F1 of one clip. Both sides empty: 1.0, one side empty: 0.0. Settings as in `EventReference`."""
    return f1_from_counts(*EventReference(reference, **settings).counts(estimated))


def group_event_f1(reference: Iterable[Event], answers: Sequence[Collection[Event]], **settings: Any) -> np.ndarray:
    """Micro Eb-F1 of many answers to one clip, shape (G,) in the order of the answers; else as `event_f1`."""
    prepared = EventReference(reference, **settings)
    return np.array([f1_from_counts(*prepared.counts(answer)) for answer in answers], dtype=np.float64)


def corpus_event_f1(
    references: Sequence[Iterable[Event]], estimates: Sequence[Collection[Event]], **settings: float
) -> CorpusScores:
    """Eb-F1 over clips; ``references[i]`` and ``estimates[i]`` belong to the same clip.

    Settings as in `EventReference`. Raises ValueError where the two differ in length. A corpus without any event on
    either side scores 1.0.
    """
    if len(references) != len(estimates):
        raise ValueError(f"{len(references)} references and {len(estimates)} estimates: need one a clip")
    return corpus_scores(
        class_totals(
            match_counts(reference, estimated, **settings)
            for reference, estimated in zip(references, estimates, strict=True)
        )
    )
