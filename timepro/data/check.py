"""Checking annotated clips against their audio: every clip becomes a manifest clip or a list of problems.

Nothing is decoded whole to learn its length, and a chunk of clips is all that is in memory, however long the data set.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from timepro.answers.write import STYLES, can_write
from timepro.data.audio import LENGTH_TOLERANCE, AudioHeader, check_audio
from timepro.data.clips import Clip, Interval, ManifestEvent, Query
from timepro.data.formats.base import Problem, RawClip
from timepro.data.labels import near
from timepro.data.manifest import CONTROL, DURATION_TOLERANCE, shown
from timepro.data.values import BadValue, seconds, text

TRIM = 0.2
"""Seconds by which an event may outlast its audio and is cut, unless the user says otherwise: the collar of event-based
F1, and enough for the published labels of DESED, which overrun by up to 0.12 s."""

T = TypeVar("T")
_CHUNK = 64  # clips a process checks before it reports
_IN_FLIGHT = 4  # chunks a process: enough to keep it busy, few enough to keep memory flat
_DEADLINE_S = 900.0  # for one chunk; long enough for hours of float samples from a slow disk


@dataclass(frozen=True)
class Rules:
    """How clips are checked.

    trim: seconds by which an event may outlast its audio; it is then cut to the audio's end.
    labels: what labels become, None leaves their events out; without a map every label is kept.
    """

    trim: float = TRIM
    labels: Mapping[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one clip: the clip, or None and its problems; repairs: (kind, line) of what had to be mended."""

    name: str
    file: str
    line: int
    clip: Clip | None
    problems: tuple[Problem, ...]
    header: AudioHeader | None = None
    repairs: tuple[tuple[str, int], ...] = ()


class Checker:
    """Checks clips; remembers where audio was found last, so that one question to the file system is enough."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._last = (0, 0)

    def __call__(self, raw: RawClip | Problem) -> Checked:
        """Check one clip; a reader's problem passes through."""
        if isinstance(raw, Problem):
            return Checked(raw.clip, raw.file, raw.line, None, (raw,))
        return _Check(raw, self.rules).run(self.locate(raw))

    def locate(self, raw: RawClip) -> str | None:
        """The path of a clip's audio; None where it is nowhere."""
        if any(name.startswith("/") or ".." in name.split("/") for name in raw.names):
            return None  # an annotation must not reach out of its data set
        first, second = self._last
        if first < len(raw.folders) and second < len(raw.names):
            path = f"{raw.folders[first]}/{raw.names[second]}"
            if os.path.exists(path):
                return path
        for i, folder in enumerate(raw.folders):
            for j, name in enumerate(raw.names):
                if os.path.exists(f"{folder}/{name}"):
                    self._last = (i, j)
                    return f"{folder}/{name}"
        return None


class _Check:
    """The check of one clip: goes on after a problem, so that all of them are reported at once."""

    def __init__(self, raw: RawClip, rules: Rules) -> None:
        self.raw, self.rules = raw, rules
        self.problems = list(raw.problems)
        self.repairs = list(raw.repairs)
        self.duration: float | None = None

    def run(self, path: str | None) -> Checked:
        header = self._audio(path)
        events = tuple(event for raw in self.raw.events if (event := self._event(*_parts(raw))) is not None)
        queries = tuple(self._query(query.text, query.intervals, query.line) for query in self.raw.queries)
        clip = None
        if path is not None and self.duration is not None and not self.problems:
            name = self.raw.id or id_of(path, self.raw.base)
            clip = Clip(name, Path(path), self.duration, events, queries, self.raw.split or None, self.raw.tasks)
        raw = self.raw
        return Checked(raw.name, raw.file, raw.line, clip, tuple(self.problems), header, tuple(self.repairs))

    def problem(self, line: int, kind: str, message: str) -> None:
        self.problems.append(Problem(self.raw.file, line, self.raw.name, kind, message))

    def repair(self, kind: str, line: int) -> None:
        self.repairs.append((kind, line))

    def _audio(self, path: str | None) -> AudioHeader | None:
        raw = self.raw
        if path is None:
            self.problem(raw.line, "missing", f"no audio {raw.names[0]} in {' or '.join(raw.folders)}")
            return None
        if self.raw.id is None and CONTROL.search(raw.name):
            self.problem(raw.line, "audio", f"{shown(raw.name)} holds a tab, a line break or the like; rename the file")
        try:
            header = check_audio(path)
        except (OSError, ValueError) as problem:
            self.problem(raw.line, "audio", str(problem))
            return None
        self.duration = round(header.duration, 6)
        if raw.duration is not None and abs(raw.duration - self.duration) > LENGTH_TOLERANCE:
            self.problem(
                raw.line,
                "length",
                f"{path}: lasts {self.duration:g} s, but {raw.duration:g} s are stated; get the audio again",
            )
        return header

    def _event(self, onset: Any, offset: Any, label: Any, line: int, caption: Any) -> ManifestEvent | None:
        span = self._span(onset, offset, line)
        name = self._text(label, "label", line)
        if caption is not None:
            caption = self._text(caption, "caption", line)
        if name is not None and self.rules.labels is not None:
            if name not in self.rules.labels:
                hint = near(name, self.rules.labels)
                self.problem(line, "unknown label", f"{shown(name)} is not in the label map{hint}")
                return None
            renamed = self.rules.labels[name]
            if renamed is None:
                self.repair("event left out, as the label map says", line)
                return None
            name = renamed
        checked = {"label": (name, "rename it with --label-map"), "caption": (caption, "reword it")}
        if name == caption:  # of data sets without classes
            del checked["label"]
        for what, (words, advice) in checked.items():
            if words is not None and not all(can_write(words, style) for style in STYLES):
                wrong = f"the {what} {shown(words)} would not be read back from an answer as it is; {advice}"
                self.problem(line, what, wrong)
        return None if span is None or name is None else ManifestEvent(*span, name, caption)

    def _query(self, text: Any, intervals: Iterable[tuple[Any, Any]], line: int) -> Query:
        spans = [self._span(onset, offset, line) for onset, offset in intervals]
        return Query(self._text(text, "query", line) or "", tuple(span for span in spans if span is not None))

    def _text(self, value: Any, what: str, line: int) -> str | None:
        return self._read(text, value, "label", what, line)

    def _span(self, onset: Any, offset: Any, line: int) -> Interval | None:
        start, end = self._time(onset, "onset", line), self._time(offset, "offset", line)
        if start is None or end is None:
            return None
        if start >= end:
            self.problem(line, "time", f"onset {start:g} s is not before offset {end:g} s")
            return None
        if self.duration is None or end <= self.duration + DURATION_TOLERANCE:
            return start, end
        over = end - self.duration
        if start < self.duration and over <= self.rules.trim:
            self.repair(f"event cut to the end of its audio, by at most {self.rules.trim:g} s", line)
            return start, self.duration
        cut = f"; --trim {math.ceil(over * 100) / 100:g} cuts it" if start < self.duration else ""
        where = f"{start:g}-{end:g} s ends {over:.3g} s beyond the audio, which lasts {self.duration:g} s"
        self.problem(line, "time", where + cut)
        return None

    def _time(self, value: Any, what: str, line: int) -> float | None:
        return self._read(seconds, value, "time", what, line)

    def _read(self, read: Callable[[Any], T], value: Any, kind: str, what: str, line: int) -> T | None:
        try:
            return read(value)
        except BadValue as problem:
            self.problem(line, kind, f"the {what} {problem}")
            return None


def id_of(path: str, base: str) -> str:
    """A clip's id: its audio's place below ``base`` without the ending; of validation/validation/a, validation/a."""
    parts = Path(path).relative_to(base).with_suffix("").parts
    folders = [part for i, part in enumerate(parts[:-1]) if part != parts[i - 1] or i == 0]
    return "/".join([*folders, parts[-1]])


def _parts(event: Any) -> tuple[Any, Any, Any, int, Any]:
    return event.onset, event.offset, event.label, event.line, event.caption


# ---------------------------------------------------------------- in several processes


def check_clips(raws: Iterable[RawClip | Problem], rules: Rules, workers: int) -> Iterator[Checked]:
    """Check clips on ``workers`` processes; results come in the order of the clips, a bounded number is under way.

    A data set of a few chunks is checked in this process. Processes are spawned: a script must guard its main module.
    Raises RuntimeError where a process dies or does not answer in time.
    """
    raws = iter(raws)
    start = list(islice(raws, 2 * _CHUNK))
    if workers == 1 or len(start) < 2 * _CHUNK:
        check = Checker(rules)
        for raw in chain(start, raws):
            yield check(raw)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(rules,))
    waiting: deque[Future[list[Checked]]] = deque()
    try:
        stream = chain(start, raws)
        while chunk := list(islice(stream, _CHUNK)):
            waiting.append(pool.submit(_check_chunk, chunk))
            if len(waiting) >= _IN_FLIGHT * workers:
                yield from waiting.popleft().result(_DEADLINE_S)
        while waiting:
            yield from waiting.popleft().result(_DEADLINE_S)
    except TimeoutError:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()  # or leaving would wait for it
        raise RuntimeError(
            f"checking {_CHUNK} clips took more than {_DEADLINE_S:g} s; is the disk answering? Try --workers 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_checker: Checker


def _begin(rules: Rules) -> None:
    global _checker
    _checker = Checker(rules)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a pool's processes would wait for work for ever


def _check_chunk(chunk: list[RawClip | Problem]) -> list[Checked]:
    return [_checker(raw) for raw in chunk]
