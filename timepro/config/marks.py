"""What a setting's type says beyond `int` or `str`, written in its annotation.

max_steps: Annotated[int, at_least(0)] = 120
grpo: Annotated[GrpoConfig, Formerly("trainer")] = field(default_factory=GrpoConfig)
rewards: Annotated[Any, Spec()] = "adaptive"
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Limits:
    """The range of a number.

    Args:
        low: the least value.
        high: the greatest value.
        open_low: whether `low` itself is out of range.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def admit(self, value: float) -> bool:
        """Whether a value lies in the range."""
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        high = f"at most {self.high:g}"
        if math.isinf(self.high):
            return low
        return high if math.isinf(self.low) else f"{low} and {high}"


def at_least(low: float) -> Limits:
    """`low` or more."""
    return Limits(low=low)


def above(low: float) -> Limits:
    """More than `low`."""
    return Limits(low=low, open_low=True)


def between(low: float, high: float) -> Limits:
    """From `low` to `high`, both included."""
    return Limits(low, high)


Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
Port = Annotated[int, between(0, 65535)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Share = Annotated[float, between(0, 1)]
Decibels = Annotated[float, between(-120, 120)]


@dataclass(frozen=True)
class Formerly:
    """What a setting or section was called before; a user of that name is told the present one."""

    name: str


@dataclass(frozen=True)
class Spec:
    """The setting names an object with parameters (`rewards`): another name drops the parameters of the one before."""


Mark = typing.TypeVar("Mark")


def bare(kind: Any) -> Any:
    """A type without its marks."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def mark(kind: Any, which: type[Mark]) -> Mark | None:
    """The mark of this class that a type carries."""
    marks = typing.get_args(kind)[1:] if typing.get_origin(kind) is typing.Annotated else ()
    return next((one for one in marks if isinstance(one, which)), None)
