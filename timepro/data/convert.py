"""From a published data set to a manifest: read, check, write, and account for everything that was not taken as it was.

Clips pass through one by one; what grows with the data set are their ids.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from timepro.data.check import Checked, Rules, check_clips
from timepro.data.formats import find
from timepro.data.formats.base import Layout, Problem, Source
from timepro.data.labels import near
from timepro.data.manifest import CONTROL, manifest_line
from timepro.data.repairs import Repairs
from timepro.progress import ProgressBar
from timepro.system.files import replacing

SHOWN = 50
"""Problems that a report carries; the list beside the manifest holds all."""
_BATCH = 64  # clips between two updates of the progress bar, which cost more than a clip


@dataclass
class Report:
    """What came of a data set.

    written: whether the manifest was. left_out: clips, and lines that belong to none, with a problem.
    problems: how many of each kind. first: the first of them. listing: the file with all, where there are any.
    repairs: what was read otherwise than it stands. labels: all of them. audio: clips a (rate, channels).
    ignored: files left alone, and why.
    """

    written: bool = False
    clips: int = 0
    seconds: float = 0.0
    left_out: int = 0
    listing: Path | None = None
    splits: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    first: list[Problem] = field(default_factory=list)
    repairs: Repairs = field(default_factory=Repairs)
    labels: set[str] = field(default_factory=set)
    audio: Counter[tuple[int, int]] = field(default_factory=Counter)
    ignored: list[tuple[str, str]] = field(default_factory=list)


def convert(
    name: str,
    root: Path,
    out: Path,
    rules: Rules,
    splits: Sequence[str] = (),
    skip_invalid: bool = False,
    workers: int = 2,
    visible: bool = True,
) -> Report:
    """Read a published data set into the manifest ``out``; as `convert_layout`, with the layout that a format finds.

    Raises FileNotFoundError and ValueError for a root, a split or a file that cannot be read at all, too.
    """
    layout = find(name, root)
    sources, parts = choose(layout.sources, splits)
    return convert_layout(Layout(sources, layout.ignored + parts), name, out, rules, skip_invalid, workers, visible)


def convert_layout(
    layout: Layout,
    title: str,
    out: Path,
    rules: Rules,
    skip_invalid: bool = False,
    workers: int = 2,
    visible: bool = True,
) -> Report:
    """Read all of a layout into the manifest ``out``, which appears in one step or not at all.

    With any problem no manifest is written, unless ``skip_invalid`` leaves the clips concerned out and some are left.
    All problems go to ``OUT.problems.tsv``, or to ``OUT.skipped.tsv`` where clips were left out.
    Raises ValueError where there are no clips, RuntimeError where a process died.
    """
    if workers < 1 or not 0 <= rules.trim < float("inf"):
        raise ValueError(f"workers ({workers}) must be at least 1, trim ({rules.trim}) at least 0 seconds")
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; --out is the manifest's file, for example {out / 'train.jsonl'}")
    report = Report(ignored=layout.ignored)
    listings = {kind: out.with_name(f"{out.name}.{kind}.tsv") for kind in ("problems", "skipped")}
    listing = listings["skipped" if skip_invalid else "problems"]
    with replacing(listing) as problems:
        problems.write("file\tline\tclip\tkind\tproblem\n")
        try:
            with replacing(out) as manifest:
                _read(title, layout.sources, report, rules, workers, visible, _Writer(report, out, manifest, problems))
                if not report.clips or (report.problems and not skip_invalid):
                    raise _Refused
                report.written = True
        except _Refused:
            pass
    for path in listings.values():  # those of earlier runs say nothing about this one
        if path != listing or not report.problems:
            path.unlink(missing_ok=True)
    if not report.clips and not report.problems:
        raise ValueError(f"{title}: the annotations name no clips; is this the right folder, or split?")
    report.listing = listing if report.problems else None
    return report


class _Refused(Exception):
    pass


def choose(sources: Sequence[Source], splits: Sequence[str]) -> tuple[list[Source], list[tuple[str, str]]]:
    """The sources that splits name, or all; and those left alone because another of them holds their clips too.

    A name chooses the source with that split, else all below it. Raises ValueError for a name without a source.
    """
    known = {source.split for source in sources}
    whole = [source for source in sources if not any(_below(source.split, other) for other in known)]
    parts = [(s.split, "part of another split; --split reads it") for s in sources if s not in whole]
    if not splits:
        return whole, parts
    chosen: list[Source] = []
    for name in splits:
        found = [s for s in sources if s.split == name] or [s for s in whole if _below(s.split, name)]
        if not found:
            raise ValueError(f"no split {name!r}{near(name, known)}; there are {', '.join(sorted(known))}")
        chosen += [source for source in found if source not in chosen]
    return chosen, []


def _below(split: str, other: str) -> bool:
    return split.startswith(f"{other}/")


def _read(
    name: str, sources: Sequence[Source], report: Report, rules: Rules, workers: int, visible: bool, writer: _Writer
) -> None:
    total = sum(source.count() for source in sources)
    with ProgressBar(name, total, "clips", visible) as bar:
        raws = (raw for source in sources for raw in source.clips())
        checked = check_clips(raws, rules, workers)
        while batch := list(islice(checked, _BATCH)):
            for clip in batch:
                writer.take(clip)
            bar.advance(len(batch), f"{report.left_out:,} with problems" if report.left_out else None)


class _Writer:
    """Writes clips to the manifest and problems to their list, and keeps count of both."""

    def __init__(self, report: Report, out: Path, manifest: TextIO, problems: TextIO) -> None:
        self.report, self.manifest, self.problems = report, manifest, problems
        self.folder = os.path.abspath(out.parent)
        self.place: dict[str, tuple[str, int]] = {}

    def take(self, checked: Checked) -> None:
        report, clip, problems = self.report, checked.clip, checked.problems
        if clip is not None:
            if clip.id in self.place:
                file, line = self.place[clip.id]
                message = f"id {clip.id!r} is already that of {file}:{line}"
                problems = (Problem(checked.file, checked.line, checked.name, "duplicate", message),)
            else:
                self.place[clip.id] = checked.file, checked.line
        for problem in problems:
            self._list(problem)
        if clip is None or problems:
            report.left_out += 1
            return
        self.manifest.write(manifest_line(clip, self.folder))
        report.clips += 1
        report.seconds += clip.duration
        report.splits[clip.split or "no split"] += 1
        report.labels.update(event.label for event in clip.events)
        report.repairs.extend((kind, f"{checked.file}:{line}") for kind, line in checked.repairs)
        if checked.header is not None:
            report.audio[checked.header.rate, checked.header.channels] += 1

    def _list(self, problem: Problem) -> None:
        self.report.problems[problem.kind] += 1
        if len(self.report.first) < SHOWN:
            self.report.first.append(problem)
        cells = (problem.file, str(problem.line), problem.clip, problem.kind, problem.message)
        self.problems.write("\t".join(CONTROL.sub("\N{REPLACEMENT CHARACTER}", cell) for cell in cells) + "\n")
