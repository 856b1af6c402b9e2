"""Pictures as PNG files: what systems heard in a clip (here) and how a training went (``draw_curves``).

The layout is worked out by hand, in inches: texts are measured before anything is placed, so nothing overlaps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timepro.canvas import (
    DARK,
    GREY,
    HOP,
    LARGE,
    NORMAL,
    PALETTE,
    RATE,
    SMALL,
    WIDTH,
    Page,
    Ruler,
    log_mel,
    mel,
    plain_style,
    save,
    ticks,
)  # fmt: skip
from timepro.curves import draw_curves
from timepro.data.audio import read_audio
from timepro.events import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ClipPicture", "draw_clips", "draw_curves", "label_styles"]

MAX_CLIPS = 6
REFERENCE = "reference"  # the lane whose boundaries guide the eye through the others
HATCHES = ("", "////", "....", "xxxx")  # a second way to tell labels apart, once the colours are used up

_MAX_COLUMNS = 3000
_WIDEST_RANGE_DB, _NARROWEST_RANGE_DB = 65.0, 30.0  # between the darkest and the lightest colour
_SILENCE_DB = -60.0  # a full-scale tone has about 42; without this bound, digital silence would be drawn as loud
_LENGTH_SLACK = 0.1  # seconds by which a stated duration may differ from the audio
_STEP = 0.04  # seconds; an answer on the time grid may end this much behind the clip

_EDGE, _TITLE, _SPECTROGRAM, _LANE_ROW, _LANE_PAD = 0.12, 0.25, 1.05, 0.215, 0.035  # inches
_TICKS, _GAP, _SWATCH = 0.2, 0.14, 0.16
_MAX_ROWS = 4  # more simultaneous events share this height


@dataclass
class ClipPicture:
    """One clip and what each system says about it.

    duration: of the audio, in seconds.
    lanes: (name, events) from top to bottom; the boundaries of the one called "reference" are drawn through all lanes.
    """

    title: str
    waveform_path: Path
    duration: float
    lanes: list[tuple[str, Sequence[Event]]]


def draw_clips(path: Path, clips: Sequence[ClipPicture]) -> None:
    """Draw one to six clips below each other, 1400 pixels wide, and write them as a PNG in one step.

    A clip is its log-mel spectrogram over one lane per system, with a bar per event. Colours mean the same label in
    the whole figure; events at the same time are stacked within their lane. Raises ValueError for a number of clips
    out of range, an event that lies outside its clip and a duration that is not the audio's.
    """
    if not 1 <= len(clips) <= MAX_CLIPS:
        raise ValueError(f"draw_clips: {len(clips)} clips, but a picture holds 1 to {MAX_CLIPS}; draw several pictures")
    for clip in clips:
        _check_clip(clip)
    with plain_style():
        save(_clips_figure(clips), path)


# ---------------------------------------------------------------- clips


def _check_clip(clip: ClipPicture) -> None:
    if not (math.isfinite(clip.duration) and clip.duration > 0):
        raise ValueError(f"clip {clip.title!r}: duration {clip.duration} s; it must be positive")
    for name, events in clip.lanes:
        for event in events:
            # Written so that NaN fails too.
            if not (0 <= event.onset < event.offset <= clip.duration + _STEP + 1e-6):
                raise ValueError(
                    f"clip {clip.title!r}, lane {name!r}: {event} lies outside the clip or has no length; "
                    f"need 0 <= onset < offset <= {clip.duration:g} s; clip or drop it before drawing"
                )


def _clips_figure(clips: Sequence[ClipPicture]) -> Figure:
    labels = sorted({event.label for clip in clips for _, events in clip.lanes for event in events} - {""})
    styles = label_styles(labels)
    stacks = [[_stack(events) for _, events in clip.lanes] for clip in clips]
    heights = [[_LANE_PAD * 2 + _LANE_ROW * min(max(1, n), _MAX_ROWS) for _, n in clip] for clip in stacks]
    ruler = Ruler()
    longest = max([ruler.width(name, NORMAL) for clip in clips for name, _ in clip.lanes], default=0.0)
    left = _EDGE + 0.1 + min(max(0.5, longest), 1.6)
    width = WIDTH - left - 0.2
    entries = _legend_entries(labels, ruler, left, width)
    legend = (entries[-1][2] + _LANE_ROW + 0.1) if entries else 0.0
    blocks = [_TITLE + _SPECTROGRAM + sum(lanes) + _TICKS for lanes in heights]
    height = _EDGE + legend + sum(blocks) + _GAP * (len(clips) - 1) + 0.06
    page = Page(height, left, width, ruler)
    _draw_legend(page, entries, styles)
    top = _EDGE + legend
    for clip, stack, lanes, block in zip(clips, stacks, heights, blocks, strict=True):
        _draw_clip(page, top, clip, stack, lanes, styles)
        top += block + _GAP
    return page.figure


def label_styles(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(colour, hatch) of each label, in the given order; the empty label, as in grounding, has one too."""
    n = len(PALETTE)
    styles = {label: (PALETTE[i % n], HATCHES[i // n % len(HATCHES)]) for i, label in enumerate(labels)}
    return {"": (PALETTE[1], "")} | styles


def _stack(events: Sequence[Event]) -> tuple[list[tuple[Event, int]], int]:
    """Each event with its row, so that no two of a row overlap, and the number of rows."""
    ends: list[float] = []
    placed = []
    for event in sorted(events):
        row = next((i for i, end in enumerate(ends) if end <= event.onset), len(ends))
        ends[row:] = [event.offset, *ends[row + 1 :]]
        placed.append((event, row))
    return placed, len(ends)


def _legend_entries(
    labels: Sequence[str], ruler: Ruler, left: float, width: float
) -> list[tuple[str, float, float, str]]:
    """(label, x, y, text) of each entry in inches, y from the legend's top, flowing over as many lines as needed.

    With more labels than styles a legend would be ambiguous, so there is none; the texts at the bars remain.
    """
    if len(labels) > len(PALETTE) * len(HATCHES):
        return []
    entries, x, y = [], left, 0.0
    for label in labels:
        text = ruler.fit(label, NORMAL, 2.8)
        needed = _SWATCH + 0.06 + ruler.width(text, NORMAL) + 0.2
        if x > left and x + needed - 0.2 > left + width:
            x, y = left, y + _LANE_ROW
        entries.append((label, x, y, text))
        x += needed
    return entries


def _draw_legend(
    page: Page, entries: Sequence[tuple[str, float, float, str]], styles: Mapping[str, tuple[str, str]]
) -> None:
    from matplotlib.patches import Rectangle

    for label, x, y, text in entries:
        middle = _EDGE + y + _LANE_ROW / 2
        corner = (x / WIDTH, 1 - (middle + 0.055) / page.height)
        colour, hatch = styles[label]
        page.figure.add_artist(
            Rectangle(
                corner, _SWATCH / WIDTH, 0.11 / page.height, facecolor=colour, hatch=hatch, edgecolor=DARK,
                linewidth=0, transform=page.figure.transFigure, gid=f"legend:{label}",
            )
        )  # fmt: skip
        page.text(x + _SWATCH + 0.06, middle, text, NORMAL)


def _draw_clip(
    page: Page,
    top: float,
    clip: ClipPicture,
    stacks: Sequence[tuple[list[tuple[Event, int]], int]],
    heights: Sequence[float],
    styles: Mapping[str, tuple[str, str]],
) -> None:
    """One clip's title, spectrogram, lanes and time axis, from ``top`` (inches) downwards."""
    end = max([clip.duration, *(event.offset for _, events in clip.lanes for event in events)])
    reference = [event for name, events in clip.lanes if name.lower() == REFERENCE for event in events]
    guides = sorted({time for event in reference for time in (event.onset, event.offset)})
    title = page.ruler.fit(clip.title, LARGE, page.width)
    page.text(page.left, top + _TITLE - 0.07, title, LARGE, va="baseline", weight="bold")
    upper = page.axes(top + _TITLE, _SPECTROGRAM)
    _draw_spectrogram(upper, clip, end)
    upper.vlines(guides, 0, 1, transform=upper.get_xaxis_transform(), color="white", alpha=0.45, linewidth=0.6)
    total = sum(heights)
    lower = page.axes(top + _TITLE + _SPECTROGRAM, max(total, 1e-3))
    lower.set(xlim=(0, end), ylim=(max(total, 1e-3), 0), yticks=[])
    lower.tick_params(axis="x", labelsize=SMALL, labelcolor=GREY, color=GREY, length=2.5, pad=2, width=0.6)
    lower.xaxis.set(major_locator=ticks(14), major_formatter=lambda seconds, _: f"{seconds:g}")
    lower.spines[["top", "left", "right"]].set_visible(False)
    lower.spines["bottom"].set(color=GREY, linewidth=0.6)
    y = 0.0
    for number, ((name, _), (placed, rows), height) in enumerate(zip(clip.lanes, stacks, heights, strict=True)):
        lower.axhspan(y, y + height, color="#f2f2f2" if number % 2 == 0 else "white", linewidth=0, zorder=0)
        shown = page.ruler.fit(name, NORMAL, page.left - 0.1 - _EDGE)
        middle = top + _TITLE + _SPECTROGRAM + y + height / 2
        page.text(page.left - 0.08, middle, shown, NORMAL, ha="right", va="center")
        _draw_lane(page, lower, (y, height), placed, rows, end, styles)
        y += height
    lower.vlines(guides, 0, total, color=DARK, alpha=0.4, linewidth=0.6, zorder=3)
    page.text(page.left - 0.16, top + _TITLE + _SPECTROGRAM + total + 0.107, "time (s)", SMALL, colour=GREY, ha="right")


def _draw_spectrogram(axes: Axes, clip: ClipPicture, end: float) -> None:
    waveform = read_audio(clip.waveform_path, RATE)
    seconds = len(waveform) / RATE
    if abs(seconds - clip.duration) > _LENGTH_SLACK:
        raise ValueError(
            f"clip {clip.title!r}: duration {clip.duration:g} s, but {clip.waveform_path} lasts {seconds:g} s; "
            "give the audio's own duration"
        )
    hop = max(HOP, math.ceil(len(waveform) / _MAX_COLUMNS))
    decibels = log_mel(waveform, hop)
    peak = max(float(decibels.max()), _SILENCE_DB)
    floor = float(np.clip(np.percentile(decibels, 15), peak - _WIDEST_RANGE_DB, peak - _NARROWEST_RANGE_DB))
    half = hop / RATE / 2
    extent = (-half, (decibels.shape[1] - 1) * 2 * half + half, 0, 1)
    axes.imshow(
        decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=floor, vmax=peak,
        interpolation="antialiased",
    )  # fmt: skip
    axes.set(xlim=(0, end), ylim=(0, 1), xticks=[])
    marks = {"0.5": 500, "1": 1000, "2": 2000, "4 kHz": 4000}
    axes.set_yticks([float(mel(f) / mel(RATE / 2)) for f in marks.values()], list(marks))
    axes.tick_params(axis="y", labelsize=SMALL, labelcolor=GREY, color=GREY, length=2.5, pad=2, width=0.6)
    axes.spines[:].set_visible(False)


def _draw_lane(
    page: Page,
    axes: Axes,
    span: tuple[float, float],
    placed: Sequence[tuple[Event, int]],
    rows: int,
    end: float,
    styles: Mapping[str, tuple[str, str]],
) -> None:
    """The bars of one lane; ``span`` is its top and height in the axes' unit, inches."""
    from matplotlib.patches import Rectangle

    top, height = span
    if not placed:
        axes.text(
            0.06 * end / page.width, top + height / 2, "no events", fontsize=SMALL, color=GREY, style="italic",
            va="center_baseline", zorder=4,
        )  # fmt: skip
        return
    row_height = (height - 2 * _LANE_PAD) / rows
    for event, row in placed:
        colour, hatch = styles[event.label]
        y = top + _LANE_PAD + row * row_height
        axes.add_patch(
            Rectangle(
                (event.onset, y + 0.008), event.offset - event.onset, row_height - 0.016, facecolor=colour,
                edgecolor=DARK, hatch=hatch, linewidth=0, gid=f"event:{event.label}", zorder=2,
            )
        )  # fmt: skip
        after = min([e.onset for e, r in placed if r == row and e.onset >= event.offset], default=end)
        if row_height >= 0.15:
            _label_bar(page, axes, event, y + row_height / 2, after, end, colour)


def _label_bar(page: Page, axes: Axes, event: Event, y: float, after: float, end: float, colour: str) -> None:
    """Write the label into its bar, or right of it up to ``after`` (seconds), or shortened into it, or leave it."""
    ruler, inch = page.ruler, page.width / end
    label = " ".join(event.label.split())
    pad = 0.045
    needed = ruler.width(label, SMALL) + 2 * pad
    inside, beside = (event.offset - event.onset) * inch, (after - event.offset) * inch
    x, text, text_colour = event.onset, label, _ink(colour)
    if needed > inside:
        shortened = ruler.fit(label, SMALL, inside - 2 * pad)
        if needed + pad <= beside:
            x, text_colour = event.offset, DARK
        elif len(shortened) >= 7:
            text = shortened
        else:
            return
    axes.text(
        x + pad / inch, y, text, fontsize=SMALL, color=text_colour, va="center_baseline", parse_math=False, zorder=4
    )


def _ink(colour: str) -> str:
    """Black or white, whichever is read more easily on a colour (relative luminance of WCAG 2, in rough sRGB)."""
    red, green, blue = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"
