"""Events of overlapping windows put together to the events of the stream.

Two windows share a stretch of the stream; its middle is the boundary between them. Of an event that both tell, the
onset is told by the window on whose side of the boundary it is, and so is the offset: an event cut by a window's edge
goes on in the next window. An event that only one of them tells counts where the onset is on that window's side, or
where the other one saw a part of it only. So no event is doubled at an edge and none is lost there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from timepro.inference.detections import Detection

SAME_WITHIN = 0.25
"""Seconds between two windows' intervals of one label up to which they may be the same event."""


@dataclass(slots=True)
class _Open:
    """An event that the next window may still change.

    Args:
        onset: where it begins, as far as known.
        last: what the last window told of it.
        decided: the onset is on the side of a window that told it.
        confidence: the highest of the windows that told it.
    """

    onset: float
    last: Detection
    decided: bool
    confidence: float | None

    def settled(self) -> Detection:
        return Detection(self.onset, max(self.onset, self.last.offset), self.last.label, self.confidence)


class Stitcher:
    """Puts together what windows tell, and gives an event as soon as no later window can change it.

    Args:
        hop: seconds after which the next window begins, at least.
        overlap: seconds that two windows share.
        gap: events of one label that are no further apart are one.
    """

    def __init__(self, hop: float, overlap: float, gap: float) -> None:
        if not (hop > 0 and overlap >= 0 and gap >= 0):
            raise ValueError(f"hop {hop}, overlap {overlap}, gap {gap}: seconds, hop above 0, the others at least 0")
        self._hop, self._gap = hop, gap
        # Without an overlap, intervals of two windows are the same event only where they touch.
        self._near = min(SAME_WITHIN, overlap / 2)
        self._open: list[_Open] = []
        self._settled: dict[str, list[Detection]] = {}
        self._span: tuple[float, float] | None = None  # of the last window

    def add(self, start: float, end: float, events: Iterable[Detection]) -> list[Detection]:
        """Take what the next window tells.

        Args:
            start, end: the window, in seconds of the stream. Windows come in order, one hop or more apart; a window
                that nobody was asked about (silence) has no events.
            events: in seconds of the stream; what lies outside of the window is cut off.

        Returns:
            events that nothing can change any more, in order of onset; joined where they are of one label and close.

        Raises:
            ValueError: a window that begins less than a hop after the one before it.
        """
        if self._span is not None and start < self._span[0] + self._hop - 1e-6:
            raise ValueError(
                f"the window from {start:.3f} s begins less than {self._hop:.3f} s after the one from "
                f"{self._span[0]:.3f} s"
            )
        told = sorted(_inside(event, start, end) for event in events if event.offset > start and event.onset < end)
        if self._span is None:
            self._open = [_Open(e.onset, e, False, e.confidence) for e in told]
        else:
            # Where they share nothing, as after a break in the stream, the boundary is in the middle of the break.
            self._continue(told, (self._span[1] + start) / 2, self._span[1])
        self._span = (start, end)
        return self._given(start + self._hop)

    def finish(self) -> list[Detection]:
        """The stream has ended: all that is left. The stitcher may be used for another stream then."""
        for event in self._open:
            self._settle(event)
        self._open, self._span = [], None
        return self._given(float("inf"))

    def _continue(self, told: list[Detection], boundary: float, seen_until: float) -> None:
        """Go on with what a window tells behind the one before, which saw the stream up to `seen_until`."""
        pairs = _pairs([event.last for event in self._open], told, self._near)
        still: list[_Open] = []
        for index, event in enumerate(self._open):
            same = told[pairs[index]] if index in pairs else None
            if not event.decided and event.onset >= boundary:  # the later window's to tell, or to deny
                if same is not None:
                    still.append(_Open(same.onset, same, False, _surest(event.confidence, same.confidence)))
                continue
            event.decided = True
            if same is not None:
                event.confidence = _surest(event.confidence, same.confidence)
            if same is not None and max(event.last.offset, same.offset) >= boundary:
                event.last = same
                still.append(event)
            else:
                self._settle(event)
        taken = set(pairs.values())
        for index, new in enumerate(told):
            # What began before the boundary was the earlier window's to tell, if that one saw all of it.
            if index not in taken and (new.onset >= boundary or new.offset > seen_until):
                still.append(_Open(new.onset, new, new.onset < boundary, new.confidence))
        self._open = still

    def _settle(self, event: _Open) -> None:
        self._settled.setdefault(event.last.label, []).append(event.settled())

    def _given(self, horizon: float) -> list[Detection]:
        """Settled events that nothing from the horizon on can touch."""
        for event in [event for event in self._open if event.last.offset + self._near < horizon]:
            self._open.remove(event)
            self._settle(event)
        out: list[Detection] = []
        for label, settled in list(self._settled.items()):
            going_on = [event for event in self._open if event.last.label == label]
            earliest = min([event.onset for event in going_on], default=horizon)
            joined = joined_within(settled, self._gap)
            done = [event for event in joined if event.offset + self._gap < min(earliest, horizon)]
            kept = [event for event in joined[len(done) :] if not self._absorbed(event, going_on)]
            out += done
            if kept:
                self._settled[label] = kept
            else:
                del self._settled[label]
        return sorted(out, key=lambda event: (event.onset, event.offset, event.label))

    def _absorbed(self, event: Detection, going_on: list[_Open]) -> bool:
        """Whether an event lies within one that goes on, so that an endless sound does not gather others behind it."""
        for longer in going_on:
            if longer.onset <= event.onset and event.offset <= longer.last.onset - self._near:
                longer.confidence = _surest(longer.confidence, event.confidence)
                return True
        return False


def joined_within(events: Iterable[Detection], gap: float) -> list[Detection]:
    """Events of one label in order, those that overlap or are at most `gap` seconds apart joined to one.

    The confidence is that of the surest.
    """
    joined: list[Detection] = []
    for event in sorted(events, key=lambda event: (event.onset, event.offset)):
        if joined and event.onset <= joined[-1].offset + gap:
            last = joined[-1]
            surest = _surest(last.confidence, event.confidence)
            joined[-1] = Detection(last.onset, max(last.offset, event.offset), last.label, surest)
        else:
            joined.append(event)
    return joined


def _pairs(before: Sequence[Detection], after: Sequence[Detection], near: float) -> dict[int, int]:
    """Which of two windows' events are the same: index before -> index after, most overlap first, each in one pair."""
    found = []
    for i, old in enumerate(before):
        for j, new in enumerate(after):
            shared = min(old.offset, new.offset) - max(old.onset, new.onset)
            if old.label == new.label and shared >= -near:
                found.append((-shared, abs(old.onset - new.onset), i, j))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, i, j in sorted(found):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return pairs


def _inside(event: Detection, start: float, end: float) -> Detection:
    onset = min(max(event.onset, start), end)
    return Detection(onset, min(max(event.offset, onset), end), event.label, event.confidence)


def _surest(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)
