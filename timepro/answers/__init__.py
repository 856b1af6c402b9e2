"""The answer's text format: how events are written, and how answers are read.

A model answers with text, everything behind it (metrics, rewards, plots) sees events. Two styles are written:

    timestamps   <0.40>dog_bark<1.20><2.00>glass_breaking<2.40>
    digits       dog_bark 0.40-1.20; glass_breaking 2.00-2.40

An answer without events is ``none`` in both. Grounding asks for one sound, so its events have an empty label and are
written ``<0.40><1.20>`` or ``0.40-1.20``.

Reading is tolerant, because early in training answers are rarely well formed and a reward needs to see the difference
between nearly right and nonsense: `parse` decides how a text is read, with one module for each shape of answer.
"""

from __future__ import annotations

from timepro.answers.parse import parse_answer
from timepro.answers.write import write_answer

__all__ = ["parse_answer", "write_answer"]
