"""Where a system's answers go wrong: boundary errors of events that it found, and what it takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from timepro.events import Event
from timepro.runs import Evaluated
from timepro.tasks import find_task

MISSED, INVENTED = "(missed)", "(made up)"


@dataclass(frozen=True)
class Boundaries:
    """Errors of matched events, K of each: answer minus reference in seconds, so that late is above 0.

    Args:
        duration: of the reference, in seconds.
        position: of the reference's middle in its clip, 0 its start, 1 its end.
        clip: the clip's length in seconds.
    """

    onset: np.ndarray
    offset: np.ndarray
    label: list[str]
    duration: np.ndarray
    position: np.ndarray
    clip: np.ndarray


def overlap_pairs(reference: Sequence[Event], found: Sequence[Event], same_label: bool) -> list[tuple[int, int]]:
    """Pairs (reference, answer) that overlap in time, one to one, with the largest overlap over union in all."""
    if not reference or not found:
        return []
    score = np.array(
        [[_overlap(r, f) if r.label == f.label or not same_label else 0.0 for f in found] for r in reference]
    )
    rows, columns = linear_sum_assignment(-score)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if score[i, j] > 0]


def boundary_errors(lines: Sequence[Evaluated]) -> Boundaries:
    """Boundary errors of all events that an answer has with the right label somewhere near (any overlap)."""
    onset, offset, label, duration, position, clip = [], [], [], [], [], []
    for line in lines:
        found = line.answer.events if line.answer.ok else []
        for i, j in overlap_pairs(line.reference, found, same_label=find_task(line.task).labels_are_classes):
            r, f = line.reference[i], found[j]
            onset.append(f.onset - r.onset)
            offset.append(f.offset - r.offset)
            label.append(r.label)
            duration.append(r.offset - r.onset)
            position.append((r.onset + r.offset) / 2 / line.duration if line.duration else np.nan)
            clip.append(line.duration)
    return Boundaries(np.array(onset), np.array(offset), label, np.array(duration), np.array(position), np.array(clip))


def confusion(lines: Sequence[Evaluated]) -> tuple[list[str], np.ndarray]:
    """What is answered where: counts (L + 1, L + 1) of events that overlap in time, whatever their labels.

    Returns:
        the L labels in alphabetical order, and the counts: rows are the reference's labels and, last, nothing (made
        up); columns the answer's labels and, last, nothing (missed).
    """
    found = {e.label for line in lines for e in (*line.reference, *line.answer.events)}
    labels = sorted(found)
    place = {label: k for k, label in enumerate(labels)}
    counts = np.zeros((len(labels) + 1, len(labels) + 1), dtype=int)
    for line in lines:
        answer = line.answer.events if line.answer.ok else []
        # The right label first: among events at the same time, only what is left over is confused.
        right = overlap_pairs(line.reference, answer, same_label=True)
        left = [i for i in range(len(line.reference)) if i not in {i for i, _ in right}]
        over = [j for j in range(len(answer)) if j not in {j for _, j in right}]
        wrong = overlap_pairs([line.reference[i] for i in left], [answer[j] for j in over], same_label=False)
        pairs = right + [(left[i], over[j]) for i, j in wrong]
        for i, j in pairs:
            counts[place[line.reference[i].label], place[answer[j].label]] += 1
        for i in set(range(len(line.reference))) - {i for i, _ in pairs}:
            counts[place[line.reference[i].label], -1] += 1
        for j in set(range(len(answer))) - {j for _, j in pairs}:
            counts[-1, place[answer[j].label]] += 1
    return labels, counts


def _overlap(a: Event, b: Event) -> float:
    shared = min(a.offset, b.offset) - max(a.onset, b.onset)
    return max(0.0, shared) / (max(a.offset, b.offset) - min(a.onset, b.onset))
