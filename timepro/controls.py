"""Does a model listen? Its questions asked again about other audio, where the right answer is known to be another one.

- silent: silence as long as the clip. What answers still earn then, they owe to what the model expects.
- shifted: the clip is cut in a pause between its events, and its two parts change places. Every event moves by a known
  time, some forwards and some back, the clip stays as long as it was, and answers must move by as much.
- swapped: another clip of the same task. What answers still earn then, any clip's answer would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from timepro.analysis import overlap_pairs
from timepro.answers import parse_answer
from timepro.data.audio import read_audio
from timepro.events import Event, ParsedAnswer
from timepro.metrics.bootstrap import micro_f1
from timepro.metrics.intervals import merge_intervals
from timepro.tasks import Sample, find_task

KINDS = ("silent", "shifted", "swapped")
_RATE = 16000
_MARGIN = 0.1  # seconds between the cut and the nearest event
_LEAST = 0.5  # seconds by which every event must move, else the clip is left out
_GRID = 0.04  # the cut lies on the grid of the times, so that the moved ones do too
_FADE = 80  # samples at each side of the seam


@dataclass(frozen=True)
class Shift:
    """A clip whose part from `cut` on comes first; both in seconds."""

    cut: float
    duration: float

    def of(self, event: Event) -> float:
        """Seconds by which an event moves, decided by its middle."""
        return -self.cut if (event.onset + event.offset) / 2 >= self.cut else self.duration - self.cut

    def moved(self, events: Iterable[Event]) -> list[Event]:
        """Events where they are in the shifted clip, in time order."""
        found = [Event(e.onset + self.of(e), e.offset + self.of(e), e.label) for e in events]
        return sorted(found, key=lambda event: (event.onset, event.offset))


@dataclass(frozen=True)
class Control:
    """A question asked again.

    Args:
        index: of the sample that it belongs to.
        sample: with the other audio, and with the answer that would be right: for silent and swapped audio that of the
            sample itself, by which the answers are scored all the same.
        shift: of shifted audio.
        other: the right answer about another clip that is in the prompt, too (`timepro.conditions`).
    """

    kind: str
    index: int
    sample: Sample
    shift: Shift | None = None
    other: tuple[Event, ...] | None = None


def find_shift(reference: Sequence[Event], duration: float) -> Shift | None:
    """Where to cut a clip so that its events move as far as possible; None where no pause allows 0.5 s."""
    busy = merge_intervals((event.onset, event.offset) for event in reference)
    if not busy:
        return Shift(_on_grid(duration / 2, 0.0, duration), duration) if duration >= 2 * _LEAST else None
    ends = [0.0, *(offset for _, offset in busy)]
    starts = [*(onset for onset, _ in busy), duration]
    best: tuple[float, float] | None = None  # the shortest way that an event moves, and the cut
    for number, (start, end) in enumerate(zip(ends, starts, strict=True)):
        low, high = max(start + _MARGIN, 0.0), min(end - _MARGIN, duration)
        if low > high:
            continue
        wanted = high if number == 0 else low if number == len(busy) else min(max(duration / 2, low), high)
        cut = _on_grid(wanted, low, high)
        ways = [cut] * (number < len(busy)) + [duration - cut] * (number > 0)  # of events behind it, and before
        best = max(best or (0.0, 0.0), (min(ways), cut))
    return Shift(best[1], duration) if best and best[0] >= _LEAST else None


def _on_grid(wanted: float, low: float, high: float) -> float:
    """The time of the grid next to a cut, where there is one between its limits."""
    near = sorted(
        (round(np.floor(wanted / _GRID) * _GRID + k * _GRID, 2) for k in (0, 1)), key=lambda t: abs(t - wanted)
    )
    return next((time for time in near if low <= time <= high), wanted)


def make_controls(
    samples: Sequence[Sample], folder: Path, progress: Callable[[int], None] = lambda done: None
) -> list[Control]:
    """The questions to ask again; audio that does not exist yet is written into a folder.

    Raises:
        ValueError: a task with one clip alone, which cannot be swapped, or audio that cannot be read.
    """
    found: list[Control] = []
    for index, sample in enumerate(samples):
        audio = read_audio(sample.audio, _RATE)
        silent = folder / f"silent-{len(audio)}.flac"
        if not silent.is_file():
            soundfile.write(silent, np.zeros(len(audio), np.float32), _RATE)
        found.append(Control("silent", index, replace(sample, audio=silent)))
        shift = find_shift(sample.reference, len(audio) / _RATE)
        if shift is not None:
            path = folder / f"shifted-{index}.flac"
            soundfile.write(path, _shifted(audio, shift), _RATE)
            moved = tuple(shift.moved(sample.reference))
            found.append(Control("shifted", index, replace(sample, audio=path, reference=moved, target=moved), shift))
        progress(1)
    return sorted([*found, *_swapped(samples)], key=lambda control: KINDS.index(control.kind))


def _shifted(audio: np.ndarray, shift: Shift) -> np.ndarray:
    """(N,) samples: what comes from the cut on, then what came before it, faded at the seam."""
    cut = round(shift.cut * _RATE)
    first, second = audio[cut:].copy(), audio[:cut].copy()
    width = min(_FADE, len(first), len(second))
    ramp = np.linspace(0.0, 1.0, width, dtype=np.float32)
    first[len(first) - width :] *= ramp[::-1]
    second[:width] *= ramp
    return np.clip(np.concatenate([first, second]), -1.0, 1.0)


def _swapped(samples: Sequence[Sample]) -> Iterator[Control]:
    for task in dict.fromkeys(sample.task for sample in samples):
        own = [index for index, sample in enumerate(samples) if sample.task == task]
        for place, index in enumerate(own):
            others = (samples[own[(place + step) % len(own)]] for step in range(1, len(own)))
            other = next((o for o in others if o.audio != samples[index].audio), None)
            if other is None:
                raise ValueError(f"task {task} has one clip alone: there is no other audio to ask about")
            yield Control("swapped", index, replace(samples[index], audio=other.audio, duration=other.duration))


def control_report(
    samples: Sequence[Sample], answers: Sequence[ParsedAnswer], controls: Sequence[Control], texts: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """By task and kind: the task's metrics of the answers to other audio, and what says whether they follow it.

    Args:
        answers: to the samples themselves.
        texts: answers to the controls.

    Returns:
        beside the metrics: `answered`, the share of answers that name events; for shifted audio also `moved` and
        `stayed`, the main metric against the model's own answers, moved as the audio was and as they were, and
        `shift`: n events found both times, and by how much their moves miss the audio's in the median (s); with another
        clip in the prompt, `of_other`: the main metric against that clip's events.
    """
    parsed = list(map(parse_answer, texts))
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for name in dict.fromkeys(sample.task for sample in samples):
        task = find_task(name)
        for kind in dict.fromkeys(control.kind for control in controls):
            own = [(c, a) for c, a in zip(controls, parsed, strict=True) if (c.kind, c.sample.task) == (kind, name)]
            if not own:
                continue
            heard = [answer for _, answer in own]
            found: dict[str, Any] = dict(task.metrics([control.sample.reference for control, _ in own], heard))
            found["answered"] = sum(answer.ok and bool(answer.events) for answer in heard) / len(heard)
            if kind == "shifted":
                found |= _following(name, samples, answers, own)
            if all(control.other is not None for control, _ in own):
                others = [control.other or () for control, _ in own]
                found["of_other"] = float(micro_f1(task.counts(others, heard).sum(axis=0)))
            report.setdefault(name, {})[kind] = found
    return report


def _following(
    name: str, samples: Sequence[Sample], answers: Sequence[ParsedAnswer], own: Sequence[tuple[Control, ParsedAnswer]]
) -> dict[str, Any]:
    task = find_task(name)
    readable = [(c, a, answers[c.index]) for c, a in own if c.shift is not None and answers[c.index].ok]
    found: dict[str, Any] = {"left_out": sum(s.task == name for s in samples) - len(own)}
    if readable:
        heard = [answer for _, answer, _ in readable]
        for key, expected in (
            ("moved", [c.shift.moved(before.events) for c, _, before in readable if c.shift]),
            ("stayed", [before.events for _, _, before in readable]),
        ):
            found[key] = float(micro_f1(task.counts(expected, heard).sum(axis=0)))
    misses = [miss for control, answer in own for miss in _misses(samples, answers, control, answer)]
    found["shift"] = {"n": len(misses), "median_error": float(np.median(np.abs(misses))) if misses else None}
    return found


def _misses(
    samples: Sequence[Sample], answers: Sequence[ParsedAnswer], control: Control, answer: ParsedAnswer
) -> Iterator[float]:
    """By how much an onset's move misses the audio's, of events that are found in both clips."""
    sample, before, shift = samples[control.index], answers[control.index], control.shift
    if shift is None or not before.ok or not answer.ok:
        return
    same = find_task(sample.task).labels_are_classes
    moved = [Event(e.onset + shift.of(e), e.offset + shift.of(e), e.label) for e in sample.reference]
    first = dict(overlap_pairs(sample.reference, before.events, same))
    second = dict(overlap_pairs(moved, answer.events, same))
    for i in first.keys() & second.keys():
        way = answer.events[second[i]].onset - before.events[first[i]].onset
        yield way - shift.of(sample.reference[i])
