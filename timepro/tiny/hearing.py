"""What the small base learns: which sounds there are, how many, in which order; and to read and compare numbers.

None of these tasks has a time in its question or its answer. A published model comes to this project with such
knowledge, and the small one shall, too: it hears what, but not when. Name a task by its import path, for example
`timepro.tiny.hearing:Tagging`; `experiments/tiny_base.yaml` trains on all of them.

What is asked is drawn from a clip's name, so that a clip always gives the same questions.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from timepro.data.clips import Clip
from timepro.data.sounds import SOUNDS
from timepro.events import Event, ParsedAnswer
from timepro.tasks.base import Column, Sample, Task, Times
from timepro.tasks.types import Answers, Metrics, References

if TYPE_CHECKING:
    import numpy as np

    from timepro.timestamps import TimestampVocabulary

_DRAWS = 200  # questions that the tokenizer is made from, a task


class TextTask(Task):
    """A question with a short text as its answer, which is right or wrong.

    The text is the label of a sample's one event, whose times mean nothing.
    """

    labels = "text"
    main_metric = "right"
    columns: tuple[Column, ...] = (Column("right", "right", ".1%"),)
    each = 1  # questions a clip

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str] | None:
        """A question about a clip and its answer; None where the clip gives none."""
        raise NotImplementedError

    def samples(self, clip: Clip, times: Times) -> list[Sample]:
        draw = random.Random(zlib.crc32(f"{self.name} {clip.id}".encode()))
        found = []
        for number in range(self.each):
            if asked := self.ask(clip, draw):
                right = (Event(0.0, clip.duration, asked[1]),)
                name = f"{clip.id}#{number}" if self.each > 1 else clip.id
                found.append(Sample(name, self.name, clip.audio, clip.duration, asked[0], right, right))
        return found

    def prompt_texts(self) -> list[str]:
        silent = Clip("", None, 1.0, (), ())  # type: ignore[arg-type]
        draws = [self.ask(replace(silent, id=str(i)), random.Random(i)) for i in range(_DRAWS)]
        return [self.asks, *(text for pair in draws if pair for text in pair)]

    def write(self, events: Sequence[Event], style: str, vocabulary: TimestampVocabulary | None) -> str:
        return events[0].label

    def read(self, text: str) -> ParsedAnswer:
        return ParsedAnswer([Event(0.0, 0.0, text.strip())], True)

    def metrics(self, references: References, answers: Answers) -> Metrics:
        """`right`: the share of answers that say what is wanted, word for word."""
        counts = self.counts(references, answers)
        return {"n": len(answers), "right": float(counts[:, 0].mean())}

    def counts(self, references: References, answers: Answers) -> np.ndarray:
        import numpy as np

        pairs = zip(references, answers, strict=True)
        right = [float(r[0].label == a.events[0].label) for r, a in pairs]
        return np.stack([np.array(right), np.ones(len(right)), np.ones(len(right))], axis=1)


class Tagging(TextTask):
    """Which classes are heard, in the order of the alphabet; judged by the F1 of the classes over all clips."""

    name = "tag"
    asks = "Which sounds are heard?"
    main_metric = "tag_f1"
    columns = (Column("tag_f1", "tagging F1"), Column("right", "all right", ".1%"))

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str]:
        return self.asks, _listed(sorted({event.label for event in clip.events}))

    def metrics(self, references: References, answers: Answers) -> Metrics:
        counts = self.counts(references, answers).sum(0)
        return {"tag_f1": float(2 * counts[0] / max(counts[1] + counts[2], 1.0))} | dict(
            super().metrics(references, answers), right=float(TextTask.counts(self, references, answers)[:, 0].mean())
        )

    def counts(self, references: References, answers: Answers) -> np.ndarray:
        import numpy as np

        rows = []
        for reference, answer in zip(references, answers, strict=True):
            wanted, given = _tags(reference[0].label), _tags(answer.events[0].label)
            rows.append([float(len(wanted & given)), float(len(wanted)), float(len(given))])
        return np.array(rows)


class Ordering(TextTask):
    """All events by their onsets, each by its class."""

    name = "order"
    asks = "Name the sounds in the order in which they begin."

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str]:
        return self.asks, _listed([event.label for event in sorted(clip.events, key=lambda e: (e.onset, e.label))])


class Counting(TextTask):
    """How many sounds there are, or how many of one class."""

    name = "count"
    asks = "How many sounds are there?"
    each = 2

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str]:
        if draw.random() < 0.5:
            return self.asks, str(len(clip.events))
        label = draw.choice(list(SOUNDS))
        return f"How often is {label} heard?", str(Counter(event.label for event in clip.events)[label])


class Neighbours(TextTask):
    """Which sound begins next after, or last before, one that is heard once."""

    name = "next"
    asks = "Which sound begins next?"
    needs = "a class that is heard once"

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str] | None:
        labels = [event.label for event in sorted(clip.events, key=lambda e: (e.onset, e.label))]
        once = [label for label, number in Counter(labels).items() if number == 1]
        if not once:
            return None
        label = draw.choice(once)
        after = draw.random() < 0.5
        place = labels.index(label) + (1 if after else -1)
        answer = labels[place] if 0 <= place < len(labels) else "none"
        return f"Which sound begins {'after' if after else 'before'} {label}?", answer


class Captioning(TextTask):
    """A caption of each event, in the order of the onsets."""

    name = "caption"
    asks = "Describe the sounds."

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str]:
        return self.asks, _listed([str(event.caption) for event in sorted(clip.events, key=lambda e: e.onset)])


class Comparing(TextTask):
    """The larger or the smaller of two decimal numbers."""

    name = "compare"
    asks = "Which number is larger?"
    each = 2

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str]:
        one = draw.randrange(3000)
        near = draw.random() < 0.5
        other = (one + draw.choice([-1, 1]) * draw.randrange(1, 200)) % 3000 if near else draw.randrange(3000)
        other = other if other != one else (one + 7) % 3000
        larger = draw.random() < 0.5
        wanted = max(one, other) if larger else min(one, other)
        pair = f"{one / 100:.2f} or {other / 100:.2f}"
        return f"Which number is {'larger' if larger else 'smaller'}, {pair}?", f"{wanted / 100:.2f}"


class Reading(TextTask):
    """What stands beside a word in a list of words and numbers."""

    name = "read"
    asks = "What stands beside a word of the list?"
    each = 3

    def ask(self, clip: Clip, draw: random.Random) -> tuple[str, str]:
        keys = draw.sample(list(SOUNDS), draw.randrange(2, 7))
        words = [word for sound in SOUNDS.values() for caption in sound.captions for word in caption.split()]
        number = draw.random() < 0.5
        values = [f"{draw.randrange(3000) / 100:.2f}" if number else draw.choice(words) for _ in keys]
        chosen = draw.randrange(len(keys))
        listed = ", ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True))
        return f"{listed}. What stands beside {keys[chosen]}?", values[chosen]


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) or "none"


def _tags(text: str) -> set[str]:
    return {part.strip() for part in text.split(",")} - {"", "none"}
