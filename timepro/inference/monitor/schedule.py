"""When a label alerts: days and hours in a time zone, written as `mon-fri 18:00-07:00`, `sat,sun` or `22:00-06:00`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from timepro.names import near

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_DAY = 24 * 60


@dataclass(frozen=True)
class Span:
    """Minutes of the days on which it begins.

    Args:
        days: 0 for Monday.
        begin: minutes from midnight.
        end: minutes from midnight, above `begin`; beyond 24 h it reaches into the next day.
    """

    days: frozenset[int]
    begin: int
    end: int


@dataclass(frozen=True)
class Schedule:
    """The union of spans; without any, always."""

    spans: tuple[Span, ...]
    zone: tzinfo | None

    def holds(self, epoch: float) -> bool:
        """Whether a moment (seconds since 1970) lies in it, by the clock on the wall of its time zone."""
        if not self.spans:
            return True
        there = datetime.fromtimestamp(epoch, self.zone)
        minute = there.hour * 60 + there.minute
        day, before = there.weekday(), (there - timedelta(days=1)).weekday()
        return any(
            (day in span.days and span.begin <= minute < span.end) or (before in span.days and minute + _DAY < span.end)
            for span in self.spans
        )


def parse_schedule(lines: Sequence[str], zone: tzinfo | None, key: str) -> Schedule:
    """Read a schedule.

    Args:
        lines: each `DAYS HOURS`, of which one may be left out.
        zone: time zone; None for this machine's.
        key: named in errors.

    Raises:
        ValueError: a line that is not of this form, by key and line.
    """
    return Schedule(tuple(_span(line, f"{key}: {line!r}") for line in lines), zone)


def _span(line: str, where: str) -> Span:
    words = line.lower().split()
    hours = [word for word in words if _HOURS.fullmatch(word)]
    days = [word for word in words if word not in hours]
    if not words or len(hours) > 1 or len(days) > 1:
        raise ValueError(f"{where} is not days, hours or both; write, for example, 'mon-fri 18:00-07:00'")
    begin, end = _minutes(hours[0], where) if hours else (0, _DAY)
    return Span(_days(days[0], where) if days else frozenset(range(7)), begin, end)


def _minutes(word: str, where: str) -> tuple[int, int]:
    found = _HOURS.fullmatch(word)
    assert found is not None
    hour, minute, hour_2, minute_2 = map(int, found.groups())
    begin, end = hour * 60 + minute, hour_2 * 60 + minute_2
    if minute > 59 or minute_2 > 59 or begin >= _DAY or end > _DAY:
        raise ValueError(f"{where}: {word} holds a time that no clock shows; hours go from 00:00 to 24:00")
    if begin == end:
        raise ValueError(f"{where}: {word} begins and ends at the same time; leave the hours out for whole days")
    return begin, end if end > begin else end + _DAY


def _days(word: str, where: str) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        first, dash, last = part.partition("-")
        numbers = [_day(name, where) for name in ([first, last] if dash else [first])]
        length = (numbers[-1] - numbers[0]) % 7
        found |= {(numbers[0] + i) % 7 for i in range(length + 1)}
    return frozenset(found)


def _day(name: str, where: str) -> int:
    if name not in DAYS:
        raise ValueError(f"{where}: {name!r} is not a day{near(name, DAYS)}; days: {', '.join(DAYS)}")
    return DAYS.index(name)
