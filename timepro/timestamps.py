"""The timestamp vocabulary: times on a grid, written as exact decimal numbers of seconds, and the tokens for them.

A time is always written alike, `<12.48>`; vocabularies differ in the tokens that this text is made of.

- `table`, the paper's: one token a grid point, 750 of them from `<0.00>` to `<29.96>` in steps of 0.04 s (one audio
  frame at 25 Hz). Its embeddings grow with the range: 90,000 for an hour.
- `factorised`, for long audio: two tokens, the whole second `<12` and the fraction `.48>`; 3,625 for an hour.

Stride and range are settings, since another encoder has another frame rate and other data have longer clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import ClassVar, NamedTuple

INITIALISATIONS = ("semantic", "semantic_ordered", "random", "smooth")
"""How the embeddings of timestamps can start; `timepro.embeddings` says how and why."""
HOW_TO_COVER = (
    "set model.tiny.timestamps.duration to more than the longest clip (a published checkpoint: timepro init-model "
    "--duration; style factorised keeps long ranges small) and build the model again"
)


_ROUNDING = 1e-3 + 1e-9  # seconds by which an event may exceed its clip (`timepro.data.manifest`)


class TokenKind(NamedTuple):
    """Tokens of one kind, whose ids follow one another.

    Args:
        numbers: what each of them says, without angle brackets: "12.48"; or "12", and ".48".
        step: seconds between neighbours.
    """

    numbers: list[str]
    step: float


@dataclass(frozen=True)
class TimestampVocabulary:
    """A grid of times in seconds, `0, stride, 2 * stride, ...` below `duration`, with one token for each.

    Args:
        stride: seconds between neighbouring times.
        duration: the range covered, in seconds; times lie in `[0, duration)`.

    Attributes:
        style: the vocabulary's name in settings.
        tokens_a_time: how many tokens write a time.

    Raises:
        ValueError: a stride or range that is not positive, or a range that is not a multiple of the stride.
    """

    stride: float = 0.04
    duration: float = 30.0
    style: ClassVar[str] = "table"
    tokens_a_time: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.stride <= 0 or self.duration <= 0:
            raise ValueError(
                f"timestamps: stride ({self.stride}) and duration ({self.duration}) must be positive seconds"
            )
        # Decimals of the written numbers: 0.04 in binary is not four hundredths, and 29.96 must print as 29.96.
        if Decimal(str(self.duration)) % Decimal(str(self.stride)) != 0:
            multiple = self.stride * math.ceil(self.duration / self.stride)
            raise ValueError(
                f"timestamps: duration {self.duration} is not a multiple of stride {self.stride}; "
                f"set model.tiny.timestamps.duration to a multiple, for example {multiple:g}"
            )

    @cached_property
    def steps(self) -> int:
        """The number of times on the grid."""
        return int(Decimal(str(self.duration)) / Decimal(str(self.stride)))

    @property
    def size(self) -> int:
        """The number of tokens."""
        return self.steps

    @property
    def decimals(self) -> int:
        """Digits behind the point that every time is written with."""
        return max(0, -int(Decimal(str(self.stride)).normalize().as_tuple().exponent))

    @property
    def kinds(self) -> list[TokenKind]:
        """All tokens in their order, by what they say."""
        return [TokenKind([self.number(i) for i in range(self.steps)], self.stride)]

    def tokens(self) -> list[str]:
        """How the tokens are written, in their order."""
        return [self.stamp(i) for i in range(self.steps)]

    def spelling(self, index: int) -> tuple[int, ...]:
        """The tokens of grid point `index`, by their places in `tokens()`."""
        return (index,)

    def spelled(self, places: tuple[int, ...]) -> int:
        """The grid point that tokens spell: the inverse of `spelling`."""
        return places[0]

    def number(self, index: int) -> str:
        """The decimal string of grid point `index`, without the angle brackets."""
        if not 0 <= index < self.steps:
            raise ValueError(f"timestamp index {index} is outside 0..{self.steps - 1}")
        return f"{Decimal(str(self.stride)) * index:.{self.decimals}f}"

    def stamp(self, index: int) -> str:
        """How grid point `index` is written, for example `<0.04>`."""
        return f"<{self.number(index)}>"

    def seconds(self, index: int) -> float:
        """The time of grid point `index`, in seconds."""
        return float(self.number(index))

    def index(self, seconds: float) -> int:
        """The grid point nearest to a time.

        The end of the range itself is no grid point: a time from there to the last one is the last one. So is one up
        to a millisecond behind the end: durations are rounded.

        Raises:
            ValueError: a negative time or one beyond the range, naming the setting to change.
        """
        nearest = round(seconds / self.stride) if math.isfinite(seconds) and seconds >= 0 else -1
        if nearest == self.steps and seconds <= self.duration + _ROUNDING:
            nearest -= 1
        if not 0 <= nearest < self.steps:
            raise ValueError(f"time {seconds} s is outside the timestamp range [0, {self.duration}) s; {HOW_TO_COVER}")
        return nearest

    def __str__(self) -> str:
        return f"{self.style}, {self.duration:g} s in steps of {self.stride:g} s, {self.size:,} tokens"


@dataclass(frozen=True)
class FactorisedVocabulary(TimestampVocabulary):
    """The same grid with two tokens a time: first those of the whole seconds, then those of the fractions.

    Raises:
        ValueError: also a stride that does not divide a second, or a range that is no whole number of seconds.
    """

    style: ClassVar[str] = "factorised"
    tokens_a_time: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.stride > 0 and (self.stride >= 1 or 1 % Decimal(str(self.stride)) != 0):
            raise ValueError(
                f"timestamps: style factorised needs a stride that divides a second, such as 0.04, not {self.stride}; "
                "set another model.tiny.timestamps.stride, or style table"
            )
        if self.duration > 0 and self.duration % 1 != 0:
            raise ValueError(
                f"timestamps: style factorised covers whole seconds, not {self.duration}; "
                f"set model.tiny.timestamps.duration to {math.ceil(self.duration)}"
            )
        super().__post_init__()

    @cached_property
    def fractions(self) -> int:
        """The number of grid points in a second."""
        return int(1 / Decimal(str(self.stride)))

    @property
    def size(self) -> int:
        return round(self.duration) + self.fractions

    @property
    def kinds(self) -> list[TokenKind]:
        whole = [str(second) for second in range(round(self.duration))]
        return [TokenKind(whole, 1.0), TokenKind([self.number(i)[1:] for i in range(self.fractions)], self.stride)]

    def tokens(self) -> list[str]:
        whole, fractions = self.kinds
        return [f"<{number}" for number in whole.numbers] + [f"{number}>" for number in fractions.numbers]

    def spelling(self, index: int) -> tuple[int, ...]:
        second, fraction = divmod(index, self.fractions)
        return second, round(self.duration) + fraction

    def spelled(self, places: tuple[int, ...]) -> int:
        second, fraction = places
        return second * self.fractions + fraction - round(self.duration)


STYLES: dict[str, type[TimestampVocabulary]] = {
    kind.style: kind for kind in (TimestampVocabulary, FactorisedVocabulary)
}


def vocabulary_of(style: str, stride: float, duration: float) -> TimestampVocabulary:
    """The vocabulary of a style.

    Raises:
        ValueError: an unknown style, or a grid that it cannot have.
    """
    if style not in STYLES:
        raise ValueError(f"timestamps: style is {style!r}; it must be one of {', '.join(STYLES)}")
    return STYLES[style](stride, duration)
