"""How sure a model is of an event: by the tokens that write it, or by how many sampled answers hold it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from timepro.answers.stamps import STAMP
from timepro.events import Event, ParsedAnswer
from timepro.inference.detections import Detection
from timepro.metrics.event_based import EventReference

_TOLERANCE = 1e-6  # so that times on a grid that differ by exactly the collar match


@dataclass(frozen=True, slots=True)
class Written:
    """An answer as it was written.

    Args:
        token_ids: T of them; the last one is the turn's end unless the answer was cut.
        logprobs: of each token under the distribution that it was drawn from, without banned tokens.
    """

    token_ids: list[int]
    logprobs: list[float]


def by_probability(parsed: ParsedAnswer, pieces: Sequence[str], logprobs: Sequence[float]) -> list[Detection]:
    """A greedy answer's events, each with the geometric mean of the probabilities of the tokens that write it.

    Where the answer is not written as trained, tokens cannot be told apart by event: all of them count for each then.

    Args:
        parsed: the answer.
        pieces: T texts of its tokens, which are the answer's text one behind the other.
        logprobs: T of the same tokens.
    """
    spans = _spans("".join(pieces), len(parsed.events)) if parsed.clean else None
    found = []
    for index, event in enumerate(parsed.events):
        start, stop = spans[index] if spans else (0, sum(map(len, pieces)))
        mine, at = [], 0
        for piece, value in zip(pieces, logprobs, strict=True):
            if at < stop and at + len(piece) > start:
                mine.append(value)
            at += len(piece)
        mean = sum(mine) / len(mine) if mine else -math.inf
        found.append(Detection(event.onset, event.offset, event.label, min(1.0, math.exp(mean))))
    return found


def _spans(text: str, n_events: int) -> list[tuple[int, int]] | None:
    """Where in a cleanly written answer its events stand, in their order; None where that cannot be told."""
    stamps = list(STAMP.finditer(text))
    if stamps:
        spans = [(a.start(), b.end()) for a, b in zip(stamps[::2], stamps[1::2], strict=False)]
    else:
        spans, at = [], 0
        for segment in text.split(";"):
            spans.append((at + len(segment) - len(segment.lstrip()), at + len(segment.rstrip())))
            at += len(segment) + 1
    return spans if len(spans) == n_events else None


def by_share(answers: Sequence[Iterable[Event]]) -> list[Detection]:
    """What n sampled answers hold, each event with the share of answers that hold a matching one.

    The event with the most answers behind it comes first and takes a matching event of each of them with it, then the
    next one of what is left; its times are the medians of what it took. Matching is that of event-based F1.

    Args:
        answers: the events of each.
    """
    pool = sorted({(event, number) for number, events in enumerate(answers) for event in events})
    if not pool:
        return []
    matches = _matches([event for event, _ in pool])
    owners = np.array([number for _, number in pool])
    left = np.ones(len(pool), bool)
    found = []
    while left.any():
        best = max(np.flatnonzero(left), key=lambda i: (len(set(owners[matches[i] & left])), -i))
        taken = _one_of_each(best, matches[best] & left, owners, pool)
        left[taken] = False
        onsets, offsets = ([getattr(pool[i][0], name) for i in taken] for name in ("onset", "offset"))
        share = len(taken) / len(answers)
        found.append(Detection(median(onsets), median(offsets), pool[best][0].label, share))
    return sorted(found)


def _matches(events: Sequence[Event]) -> np.ndarray:
    """(N, N) whether event j matches event i as the reference."""
    matches = np.zeros((len(events), len(events)), bool)
    for i, event in enumerate(events):
        reference = EventReference([event], tolerance=_TOLERANCE)
        for j, other in enumerate(events):
            if other.onset > event.onset + 1 or other.label != event.label:
                continue
            matches[i, j] = bool(reference.candidates(other))
    return matches


def _one_of_each(best: int, matching: np.ndarray, owners: np.ndarray, pool: Sequence[tuple[Event, int]]) -> list[int]:
    """Of each answer's matching events the nearest one."""
    centre = pool[best][0]
    nearest: dict[int, tuple[float, int]] = {}
    for i in np.flatnonzero(matching):
        event = pool[i][0]
        distance = abs(event.onset - centre.onset) + abs(event.offset - centre.offset)
        owner = int(owners[i])
        if owner not in nearest or (distance, int(i)) < nearest[owner]:
            nearest[owner] = (distance, int(i))
    return [i for _, i in nearest.values()]
