"""What a task is: what it asks of a clip, which answer is right, and how answers are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from timepro.answers import parse_answer, write_answer
from timepro.data.clips import Clip
from timepro.events import Event, ParsedAnswer
from timepro.tasks.types import Answers, Metrics, References

if TYPE_CHECKING:
    import numpy as np

    from timepro.timestamps import TimestampVocabulary

Times = Literal["exact", "annotated"]
LABELS = ("classes", "captions", "none", "text")


@dataclass(frozen=True)
class Sample:
    """One question about one clip, with the right answer.

    `reference` are the exact times, `target` what a supervised answer is trained on: the same, or an annotator's
    lagged version of them. `task` is the task's short name, `duration` is in seconds. `before` is text in front of the
    clip and `earlier` another clip in front of it, where a task or a test puts some there (`timepro.conditions`).
    """

    id: str
    task: str
    audio: Path
    duration: float
    question: str
    reference: tuple[Event, ...]
    target: tuple[Event, ...]
    before: str = ""
    earlier: Path | None = None


class Column(NamedTuple):
    """A column of the final table.

    Args:
        key: a metric of the task.
        format: as in `format(value, ".3f")`.
        better: "+" higher values are better, "-" lower ones, "" neither.
    """

    key: str
    heading: str
    format: str = ".3f"
    better: str = "+"


PRECISION, RECALL = Column("precision", "precision"), Column("recall", "recall")
UNPARSABLE = Column("unparsable", "unparsable", ".1%", "-")
MENDED = Column("mended", "mended", ".1%", "-")


class Task:
    """What is asked of a clip, which answer is right, and how answers are judged.

    A task of your own is a subclass that sets `name` and `asks` and overrides what differs: by default a clip gives one
    question, whose right answer is the clip's events, judged by event-based F1.

    Attributes:
        name: short name, part of sample ids and metric keys: letters, digits, "_" and "-".
        asks: the question; "{query}" in it stands for a query's text.
        needs: what a clip must have to give a sample ("a query"), for the message where no clip has it.
        labels: what stands for an event in an answer. "classes": one of a closed set; rewards and metrics ask that it
            matches, pictures give it a colour, and analysis compares class with class (confusion). "captions": free
            text. "none": nothing, the question says what is meant. In these two, times alone count.
            "text": there are no events; a sample's answer is a text of its own, held as the label of one event.
        main_metric: the metric by which models are compared, with a paired bootstrap over `counts`.
        columns: of the final table, in order.
    """

    name: str = ""
    asks: str = ""
    needs: str = ""
    labels: Literal["classes", "captions", "none", "text"] = "classes"
    main_metric: str = "eb_f1_micro"
    columns: tuple[Column, ...] = (
        Column("eb_f1_micro", "Eb-F1 micro"), Column("miou", "mIoU"), PRECISION, RECALL, UNPARSABLE, MENDED,
    )  # fmt: skip

    @property
    def labels_are_classes(self) -> bool:
        """Whether labels come from a closed set and must match."""
        return self.labels == "classes"

    @property
    def main_heading(self) -> str:
        """What the main metric is called where people read it."""
        return next(column.heading for column in self.columns if column.key == self.main_metric)

    @property
    def takes_query(self) -> bool:
        """Whether the question is about a query."""
        return "{query}" in self.asks

    def question(self, query: str = "") -> str:
        """What is asked.

        Args:
            query: what it is asked about, for a task that takes a query.

        Raises:
            ValueError: a query is missing, or the task takes none.
        """
        if self.takes_query and not query:
            raise ValueError(f"task {self.name} asks about a query, and none is given")
        if query and not self.takes_query:
            raise ValueError(f"task {self.name} takes no query: it asks {self.asks!r}")
        return self.asks.replace("{query}", query)

    def prompt_texts(self) -> list[str]:
        """What its questions say, for training a small tokenizer."""
        return [self.asks.replace("{query}", " ")]

    def events(self, clip: Clip, times: Times) -> list[Event]:
        """The right answer to the question about a whole clip, in time order.

        Raises:
            ValueError: the clip lacks what the task needs, such as annotated times.
        """
        return clip.labelled(times)

    def samples(self, clip: Clip, times: Times) -> list[Sample]:
        """The questions that a clip gives, each with its right answer.

        Args:
            times: "exact" or "annotated", the times of the supervised target. The reference is always exact.

        Raises:
            ValueError: the clip lacks what the task needs.
        """
        reference = tuple(self.events(clip, "exact"))
        target = reference if times == "exact" else tuple(self.events(clip, times))
        return [Sample(clip.id, self.name, clip.audio, clip.duration, self.question(), reference, target)]

    def write(self, events: Sequence[Event], style: str, vocabulary: TimestampVocabulary | None) -> str:
        """The right answer as the model is taught to write it; by default as events with their times.

        Args:
            events: a sample's `target`.
            style, vocabulary: how this checkpoint writes times, as `timepro.answers.write_answer` takes them.
        """
        return write_answer(events, style, vocabulary)

    def read(self, text: str) -> ParsedAnswer:
        """What could be read from an answer: the inverse of `write`."""
        return parse_answer(text)

    # Judging imports numpy and scipy, inside the functions: whoever only makes samples does without them.

    def metrics(self, references: References, answers: Answers) -> Metrics:
        """Scores of N answers, one a sample: `n`, the main metric, and all that `columns` show.

        An unparsable answer counts as one without events, and has an IoU of 0.

        Raises:
            ValueError: no samples, or differing numbers of references and answers.
        """
        from timepro.tasks.scoring import ScoredEvents

        return ScoredEvents(references, answers, self.labels_are_classes).event_metrics()

    def counts(self, references: References, answers: Answers) -> np.ndarray:
        """The main metric sample by sample, (N, 3), for the bootstrap: rows whose summed `2 a / (b + c)` is the metric.

        For event-based F1 they are true positives, reference and estimated events; for a mean they are the value, 1, 1.

        Raises:
            ValueError: as `metrics`.
        """
        from timepro.tasks.scoring import ScoredEvents

        return ScoredEvents(references, answers, self.labels_are_classes).event_counts()
