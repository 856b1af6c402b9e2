"""What judging a task takes and gives."""

from __future__ import annotations

from collections.abc import Sequence

from timepro.events import Event, ParsedAnswer

References = Sequence[Sequence[Event]]
Answers = Sequence[ParsedAnswer]
Metrics = dict[str, float | int]
