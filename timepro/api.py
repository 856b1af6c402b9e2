"""`timepro.evaluate`: every metric, from Python, of answers in whatever form they are at hand."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timepro.answers import parse_answer
from timepro.data.event_files import read_event_file
from timepro.data.event_parts import FileEvents, Role
from timepro.events import Event, ParsedAnswer
from timepro.metrics.report import event_report

_EVENT = "timepro.Event(onset, offset, label), (onset, offset, label) or {'onset': ..., 'offset': ..., 'label': ...}"
_ANSWER = "a text, a list of events, or what parse_answer and Model.answer give"
_CLIPS = "a file's path, a mapping from clip to events, or a list with the events of each clip"


def evaluate(
    references: Any,
    answers: Any,
    *,
    resamples: int = 2000,
    seed: int = 0,
    onset_collar: float = 0.2,
    offset_collar: float = 0.2,
    offset_ratio: float = 0.2,
    tolerance: float = 0.0,
    use_label: bool = True,
) -> dict[str, Any]:
    """Score answers against references, as `timepro evaluate PREDICTIONS REFERENCE` does.

    Args:
        references: a path (a manifest, or whatever the command reads), a mapping from clip to events, or a list with
            the events of each clip. An event is an `Event`, (onset, offset, label) in seconds, or a mapping with those
            keys (`event_label` may stand for `label`).
        answers: the same for the answers, of which each may also be a text, a `ParsedAnswer`, or what `Model.answer`
            gives. By name, a clip without an answer has an empty one; in lists, both have the same order.
        resamples: of the bootstrap, for 95 % intervals; 0 for none.
        onset_collar, offset_collar, offset_ratio, tolerance: of event-based matching, in seconds (the ratio: of a
            reference's length).
        use_label: False scores times alone.

    Returns:
        the report of `timepro.metrics.event_report`: `report["event_based"]["micro"]["f1"]` is Eb-F1.

    Raises:
        TypeError: something that is neither of these, saying what is wanted.
        ValueError: clips that do not belong together, events that cannot be, or a file that cannot be read.
    """
    wanted, given = _clips(references, "reference"), _clips(answers, "predictions")
    if isinstance(wanted, Mapping) != isinstance(given, Mapping):
        raise TypeError("references and answers must both have names (a path, a mapping), or both be lists")
    if isinstance(wanted, Mapping):
        if unknown := [name for name in given if name not in wanted]:
            raise ValueError(
                f"{len(unknown)} answers are to clips that have no reference, the first to {unknown[0]!r}; leave them "
                "out, or add their references (an empty list where there are no events)"
            )
        given = [given.get(name, []) for name in wanted]
        wanted = list(wanted.values())
    return event_report(
        [_events(events, f"references[{i}]") for i, events in enumerate(wanted)],
        [_answer(answer, f"answers[{i}]") for i, answer in enumerate(given)],
        resamples,
        seed,
        onset_collar=onset_collar,
        offset_collar=offset_collar,
        offset_ratio=offset_ratio,
        tolerance=tolerance,
        use_label=use_label,
    )


def as_event(value: Any, where: str = "event") -> Event:
    """An event from any of the forms that `evaluate` takes.

    Args:
        where: what a message calls it.

    Raises:
        TypeError: something else, saying what is wanted.
        ValueError: times that are not finite, or an end before the start.
    """
    if isinstance(value, Mapping):
        parts = [value.get("onset"), value.get("offset"), value.get("label", value.get("event_label", ""))]
    elif isinstance(value, Event):
        parts = [value.onset, value.offset, value.label]
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) in (2, 3):
        parts = [*value, ""][:3]
    else:
        raise TypeError(f"{where} is {value!r}; an event is {_EVENT}")
    onset, offset, label = parts
    numbers = all(_is_number(part) for part in (onset, offset))
    if not numbers or not isinstance(label, str):
        raise TypeError(f"{where} is {value!r}, which is not two numbers of seconds and a text; an event is {_EVENT}")
    if not (math.isfinite(onset) and math.isfinite(offset) and onset <= offset):
        raise ValueError(f"{where} is {value!r}; onset and offset are finite seconds, onset first")
    return Event(float(onset), float(offset), label)


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)  # numpy's too


def _events(values: Any, where: str) -> list[Event]:
    if isinstance(values, (str, bytes, Mapping, Event)) or not isinstance(values, Iterable):
        raise TypeError(f"{where} is {values!r}; give a list of events, an empty one where there are none")
    return [as_event(value, f"{where}[{i}]") for i, value in enumerate(values)]


def _answer(value: Any, where: str) -> ParsedAnswer:
    if isinstance(value, str):
        return parse_answer(value)
    if isinstance(value, FileEvents):
        return ParsedAnswer(value.events, value.ok)
    parsed = getattr(value, "parsed", value)  # of `timepro.inference.model.Answer`, whose import would load torch
    if isinstance(parsed, ParsedAnswer):
        return parsed
    try:
        return ParsedAnswer(_events(value, where), True)
    except TypeError as error:
        raise TypeError(f"{error}; an answer is {_ANSWER}") from None


def _clips(value: Any, role: Role) -> Any:
    """Clip by clip: by name where there are names, else a list."""
    if isinstance(value, (str, os.PathLike)):
        files = read_event_file(value, role)
        return {name: entry.events for name, entry in files.items()} if role == "reference" else files
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, Iterable):
        raise TypeError(f"{role} is {value!r}; give {_CLIPS}")
    return list(value)
