"""The timestamp vocabulary: one token a grid point, written as an exact decimal number of seconds.

The paper uses 750 tokens, `<0.00>` to `<29.96>` in steps of 0.04 s (one audio frame at 25 Hz). Stride and range are
settings here, since another encoder has another frame rate and other data have longer clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

INITIALISATIONS = ("semantic", "semantic_ordered", "random", "smooth")
"""How the embeddings of timestamps can start; `timepro.embeddings` says how and why."""


_ROUNDING = 1e-3 + 1e-9  # seconds by which an event may exceed its clip (`timepro.data.manifest`)


@dataclass(frozen=True)
class TimestampVocabulary:
    """A grid of times in seconds, `0, stride, 2 * stride, ...` below `duration`.

    Args:
        stride: seconds between neighbouring timestamps.
        duration: the range covered, in seconds; times lie in `[0, duration)`.

    Raises:
        ValueError: a stride or range that is not positive, or a range that is not a multiple of the stride.
    """

    stride: float = 0.04
    duration: float = 30.0

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

    @property
    def size(self) -> int:
        """The number of timestamp tokens."""
        return int(Decimal(str(self.duration)) / Decimal(str(self.stride)))

    @property
    def decimals(self) -> int:
        """Digits behind the point that every token is written with."""
        return max(0, -int(Decimal(str(self.stride)).normalize().as_tuple().exponent))

    def number(self, index: int) -> str:
        """The decimal string of grid point `index`, without the angle brackets."""
        if not 0 <= index < self.size:
            raise ValueError(f"timestamp index {index} is outside 0..{self.size - 1}")
        return f"{Decimal(str(self.stride)) * index:.{self.decimals}f}"

    def token(self, index: int) -> str:
        """The token of grid point `index`, for example `<0.04>`."""
        return f"<{self.number(index)}>"

    def tokens(self) -> list[str]:
        """All tokens in the order of their times."""
        return [self.token(i) for i in range(self.size)]

    def seconds(self, index: int) -> float:
        """The time of grid point `index`, in seconds."""
        return float(self.number(index))

    def index(self, seconds: float) -> int:
        """The grid point nearest to a time.

        The end of the range itself has no token: a time from there to the last grid point is that point. So is one up
        to a millisecond behind the end: durations are rounded.

        Raises:
            ValueError: a negative time or one beyond the range, naming the setting to change.
        """
        nearest = round(seconds / self.stride) if math.isfinite(seconds) and seconds >= 0 else -1
        if nearest == self.size and seconds <= self.duration + _ROUNDING:
            nearest -= 1
        if not 0 <= nearest < self.size:
            raise ValueError(
                f"time {seconds} s is outside the timestamp range [0, {self.duration}) s; "
                "set model.tiny.timestamps.duration (a published checkpoint: timepro init-model --duration) to cover "
                "the longest clip and build the model again"
            )
        return nearest
