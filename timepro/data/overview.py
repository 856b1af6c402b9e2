"""What a manifest holds: hours, classes, durations, overlaps and queries, as tables and as a picture.

The manifest is read clip by clip; kept are one number a clip and one an event.
"""

from __future__ import annotations

import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.data.audio import LENGTH_TOLERANCE, read_header
from timepro.data.clips import Clip, Interval
from timepro.data.manifest import iter_manifest
from timepro.data.spelling import notes
from timepro.progress import ProgressBar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PROBLEMS = 20  # clips whose audio does not fit that are named
_ROWS = 40  # classes in the table
_BARS = 20  # classes in the picture
_DEEPEST = 4  # this many events at once, or more, are counted together


@dataclass
class ClassFigures:
    """Of one label: clips it is in, and the length of each of its events in seconds."""

    clips: int = 0
    lengths: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Overview:
    """Figures of a manifest. Lengths are in seconds.

    polyphony: seconds during which exactly 0, 1, 2, 3 events sound at once, and 4 or more.
    most: the largest number of events at once. overlapping: events that overlap another one.
    queries, absent, intervals: grounding queries, those for a sound that is not there, and intervals of the others.
    audio_problems: (clip, what) of the clips whose audio is not there, cannot be read or lasts longer or shorter than
    stated.
    """

    splits: Counter[str] = field(default_factory=Counter)
    durations: array[float] = field(default_factory=lambda: array("d"))
    events_a_clip: Counter[int] = field(default_factory=Counter)
    classes: dict[str, ClassFigures] = field(default_factory=lambda: defaultdict(ClassFigures))
    polyphony: list[float] = field(default_factory=lambda: [0.0] * (_DEEPEST + 1))
    most: int = 0
    overlapping: int = 0
    captions: int = 0
    queries: int = 0
    absent: int = 0
    intervals: int = 0
    audio_problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def lengths(self) -> array[float]:
        """The lengths of all events."""
        together = array("d")
        for one in self.classes.values():
            together += one.lengths
        return together

    def add(self, clip: Clip) -> None:
        """Count one clip."""
        self.splits[clip.split or "none stated"] += 1
        self.durations.append(clip.duration)
        self.events_a_clip[len(clip.events)] += 1
        for event in clip.events:
            self.classes[event.label].lengths.append(event.offset - event.onset)
            self.captions += event.caption is not None
        for label in {event.label for event in clip.events}:
            self.classes[label].clips += 1
        spans = [(event.onset, event.offset) for event in clip.events]
        for depth, seconds in enumerate(seconds_by_polyphony(spans, clip.duration)):
            self.polyphony[min(depth, _DEEPEST)] += seconds
            self.most = max(self.most, depth)
        self.overlapping += overlapping(spans)
        self.queries += len(clip.queries)
        self.absent += sum(not query.intervals for query in clip.queries)
        self.intervals += sum(len(query.intervals) for query in clip.queries)


def overview(path: Path, check_audio: bool = False, visible: bool = True) -> Overview:
    """Count a manifest. Raises as `iter_manifest` does, but not for what is wrong with audio files: that is counted.

    Args:
        check_audio: compare stated durations with the headers of the audio files.
        visible: show a progress bar for that.
    """
    found = Overview()
    with ProgressBar("reading headers", 0, "clips", visible and check_audio) as bar:
        for clip in iter_manifest(path, check_audio=False):
            found.add(clip)
            if check_audio:
                if problem := audio_problem(clip):
                    found.audio_problems.append((clip.id, problem))
                bar.advance()
    return found


def as_json(found: Overview) -> dict[str, Any]:
    """The figures of a manifest for a program; lengths and durations in seconds."""
    return {
        "clips": len(found.durations),
        "splits": dict(found.splits),
        "seconds": sum(found.durations),
        "events": len(found.lengths),
        "captions": found.captions,
        "overlapping": found.overlapping,
        "clips_without_events": found.events_a_clip[0],
        "seconds_by_polyphony": found.polyphony,
        "most_at_once": found.most,
        "queries": found.queries,
        "absent_queries": found.absent,
        "classes": {
            label: {
                "clips": one.clips,
                "events": len(one.lengths),
                "seconds": sum(one.lengths),
                "median": statistics.median(one.lengths),
            }
            for label, one in sorted(found.classes.items())
        },
        "notes": list(notes(found.classes)),
        "audio_problems": [{"clip": clip, "problem": problem} for clip, problem in found.audio_problems],
    }


def audio_problem(clip: Clip) -> str:
    """Why a clip does not fit its audio, by the file's header; "" where it does."""
    try:
        header = read_header(clip.audio)
    except (OSError, ValueError) as problem:
        return str(problem)
    if abs(header.duration - clip.duration) > LENGTH_TOLERANCE:
        return f"{clip.audio}: lasts {header.duration:g} s, but {clip.duration:g} s are stated"
    late = [end for end in _ends(clip) if end > header.duration + LENGTH_TOLERANCE]
    return f"{clip.audio}: lasts {header.duration:g} s, an event ends at {max(late):g} s" if late else ""


def _ends(clip: Clip) -> list[float]:
    return [event.offset for event in clip.events] + [end for query in clip.queries for _, end in query.intervals]


def seconds_by_polyphony(spans: Sequence[Interval], duration: float) -> list[float]:
    """Seconds of a clip during which exactly 0, 1, 2, ... of the spans are active."""
    steps = sorted([(onset, 1) for onset, _ in spans] + [(min(offset, duration), -1) for _, offset in spans])
    seconds, active, before = [0.0], 0, 0.0
    for time, step in steps:  # ends come before onsets at the same time
        seconds[active] += time - before
        active, before = active + step, time
        if active == len(seconds):
            seconds.append(0.0)
    seconds[0] += max(0.0, duration - before)
    return seconds


def overlapping(spans: Sequence[Interval]) -> int:
    """How many of the spans overlap another one."""
    ordered = sorted(spans)
    count, latest = 0, 0.0
    for i, (onset, offset) in enumerate(ordered):
        follows = i + 1 < len(ordered) and ordered[i + 1][0] < offset
        count += (i > 0 and onset < latest) or follows
        latest = max(latest, offset)
    return count


# ---------------------------------------------------------------- tables


def print_overview(found: Overview, title: str, form: str = "text") -> None:
    """Print the figures as two tables: of the whole, and of the classes with most events."""
    from timepro.tables import print_table, results_table

    clips, lengths = len(found.durations), found.lengths
    hours = sum(found.durations) / 3600
    active = sum(found.polyphony[1:])
    whole = [
        ("clips", clips, ""),
        *((f"  of split {split}", count, "") for split, count in found.splits.most_common()),
        ("hours", hours, ".2f"),
        ("duration, median", statistics.median(found.durations), ".2f"),
        ("duration, shortest", min(found.durations), ".2f"),
        ("duration, longest", max(found.durations), ".2f"),
        ("events", len(lengths), ""),
        ("  with a caption", found.captions, ""),
        ("  that overlap another", found.overlapping, ""),
        ("clips without events", found.events_a_clip[0], ""),
        ("classes", len(found.classes), ""),
        ("time with events", active / sum(found.durations), ".1%"),
        ("time with two or more at once", sum(found.polyphony[2:]) / sum(found.durations), ".1%"),
        ("most events at once", found.most, ""),
        ("queries", found.queries, ""),
    ]
    if found.queries:
        whole.append(("  for an absent sound", found.absent, ""))
    if present := found.queries - found.absent:
        whole.append(("  intervals of each other one", found.intervals / present, ".2f"))
    _print_pairs(title, [(name, format(value, kind or ",")) for name, value, kind in whole], form)
    _print_problems(found, form)
    if not found.classes:
        return
    ranked = sorted(found.classes.items(), key=lambda item: (-len(item[1].lengths), item[0]))
    rows = [
        (
            " ".join(label.split())[:60],
            {"events": len(one.lengths), "clips": one.clips, "minutes": sum(one.lengths) / 60,
             "median": statistics.median(one.lengths), "share": len(one.lengths) / len(lengths)},
        )
        for label, one in ranked[:_ROWS]
    ]  # fmt: skip
    left = len(ranked) - len(rows)
    heading = "Classes" + (f" (the {_ROWS} with most events; {left:,} more)" if left else "")
    columns = [
        ("events", "events", ",", ""),
        ("share", "share", ".1%", ""),
        ("clips", "clips", ",", ""),
        ("minutes", "minutes", ",.1f", ""),
        ("median", "median length (s)", ".2f", ""),
    ]
    print_table(results_table(heading, rows, columns), form)


def _print_problems(found: Overview, form: str) -> None:
    """Print what somebody should know: labels that differ in spelling alone, clips that do not fit their audio."""
    from timepro.tables import print_lines

    lines = [f"note: {line}" for line in notes(found.classes)]
    lines += [f"clip {name!r}: {problem}" for name, problem in found.audio_problems[:_PROBLEMS]]
    if (more := len(found.audio_problems) - _PROBLEMS) > 0:
        lines.append(f"and {more:,} more clips")
    print_lines(lines, form)


def _print_pairs(title: str, rows: Sequence[tuple[str, str]], form: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from timepro.tables import print_table

    table = Table(
        title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=False
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    print_table(table, form)


# ---------------------------------------------------------------- picture


def draw_overview(found: Overview, path: Path, title: str) -> None:
    """Draw classes, durations, lengths of events, events a clip and polyphony; the file's ending decides the format."""
    from timepro.plots.canvas import plain_style, save

    with plain_style():
        save(_figure(found, title), path)


def _figure(found: Overview, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from timepro.plots.canvas import DARK, DPI, LARGE, WIDTH, Ruler

    ranked = sorted(((label, len(one.lengths)) for label, one in found.classes.items()), key=lambda x: (-x[1], x[0]))
    bars = min(len(ranked), _BARS)
    figure = Figure(figsize=(WIDTH, max(4.6, 1.0 + 0.24 * bars)), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.1, h_pad=0.08, wspace=0.04, hspace=0.06)
    hours = sum(found.durations) / 3600
    heading = f"{title}: {len(found.durations):,} clips, {hours:,.2f} hours, {sum(n for _, n in ranked):,} events"
    shown = Ruler().fit(heading, LARGE + 1, WIDTH - 0.4)
    figure.suptitle(shown, fontsize=LARGE + 1, weight="bold", color=DARK, parse_math=False)
    grid = figure.add_gridspec(2, 3, width_ratios=(1.25, 1, 1))
    _draw_classes(figure.add_subplot(grid[:, 0]), ranked)
    _draw_histogram(figure.add_subplot(grid[0, 1]), found.durations, "durations of clips (s)")
    _draw_histogram(figure.add_subplot(grid[0, 2]), found.lengths, "lengths of events (s)")
    counts = found.events_a_clip
    most = min(max(counts), 9)
    together = [counts[n] for n in range(most)] + [sum(count for n, count in counts.items() if n >= most)]
    names = [str(n) for n in range(most)] + [f"{most}+" if max(counts) > most else str(most)]
    _draw_columns(figure.add_subplot(grid[1, 1]), names, together, "events a clip", "clips")
    names = [*map(str, range(_DEEPEST)), f"{_DEEPEST}+"]
    share = [100 * seconds / sum(found.durations) for seconds in found.polyphony]
    _draw_columns(figure.add_subplot(grid[1, 2]), names, share, "events at once", "% of the time")
    return figure


def _plain(axes: Axes, title: str) -> None:
    from timepro.plots.canvas import DARK, GREY, NORMAL, SMALL

    axes.set_title(title, fontsize=NORMAL, loc="left", color=DARK, pad=5, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color="#b0b0b0", linewidth=0.7)
    axes.tick_params(labelsize=SMALL, labelcolor=GREY, color="#b0b0b0", length=2.5, width=0.7)
    axes.set_axisbelow(True)


def _empty(axes: Axes) -> None:
    from timepro.plots.canvas import GREY, NORMAL

    axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", fontsize=NORMAL, color=GREY)
    axes.set(xticks=[], yticks=[])


def _draw_classes(axes: Axes, ranked: Sequence[tuple[str, int]]) -> None:
    from timepro.plots.canvas import GREY, PALETTE, SMALL, Ruler, ticks

    more = len(ranked) - _BARS
    _plain(axes, "events a class" + (f" ({more:,} more classes)" if more > 0 else ""))
    if not ranked:
        _empty(axes)
        return
    ruler, bars = Ruler(), ranked[:_BARS]
    axes.barh(range(len(bars)), [count for _, count in bars], height=0.72, color=PALETTE[4])
    axes.set_yticks(range(len(bars)))
    axes.set_yticklabels([ruler.fit(label, SMALL, 1.75) for label, _ in bars], parse_math=False)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.margins(x=0.14)
    axes.xaxis.set_major_locator(ticks(4, whole=True))
    axes.grid(axis="x", color="#ebebeb", linewidth=0.7)
    for row, (_, count) in enumerate(bars):
        axes.annotate(
            f"{count:,}", (count, row), (3, 0), textcoords="offset points", va="center_baseline", fontsize=SMALL,
            color=GREY,
        )  # fmt: skip


def _draw_histogram(axes: Axes, values: array[float], title: str) -> None:
    from matplotlib.ticker import LogLocator

    from timepro.plots.canvas import PALETTE, ticks

    _plain(axes, title)
    if not values:
        _empty(axes)
        return
    low, high = min(values), max(values)
    wide = low > 0 and high / low > 30  # lengths spread over orders of magnitude are read on a logarithmic axis
    if high - low < 0.01 * high:  # all the same: a bar of some width
        edges = [low - 0.5, high + 0.5]
    elif wide:
        edges = [low * (high / low) ** (i / 30) for i in range(31)]
    else:
        edges = [low + (high - low) * i / 30 for i in range(31)]
    edges[-1] = max(edges[-1], high)  # rounding must not lose the last value
    axes.hist(values, bins=edges, color=PALETTE[2])
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(ticks(5))
    axes.yaxis.set_major_locator(ticks(4, whole=True))
    axes.grid(axis="y", color="#ebebeb", linewidth=0.7)


def _draw_columns(axes: Axes, names: Sequence[str], heights: Sequence[float], title: str, unit: str) -> None:
    from timepro.plots.canvas import GREY, PALETTE, SMALL, ticks

    _plain(axes, title)
    axes.bar(range(len(names)), heights, width=0.72, color=PALETTE[1])
    axes.set_xticks(range(len(names)), names)
    axes.yaxis.set_major_locator(ticks(4))
    axes.set_ylabel(unit, fontsize=SMALL, color=GREY, labelpad=2)
    axes.grid(axis="y", color="#ebebeb", linewidth=0.7)
