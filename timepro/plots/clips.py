"""Pictures of clips: the spectrogram, and below it what the reference and each system say is heard when.

The layout is worked out by hand, in inches: texts are measured before anything is placed, so nothing overlaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timepro.data.audio import LENGTH_TOLERANCE, read_audio
from timepro.events import Event, ParsedAnswer
from timepro.plots.canvas import DARK, GREY, LARGE, NORMAL, SMALL, WIDTH, Page, Ruler, plain_style, save, ticks
from timepro.plots.class_styles import Styles, class_styles
from timepro.plots.files import MAX_CLIPS
from timepro.plots.lanes import (
    BAR,
    LANE_PAD,
    OUT_OF_CLASS,
    collars,
    draw_collars,
    draw_lane,
    patch_style,
    stack,
)
from timepro.plots.spectrogram import RATE, draw_spectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "reference"  # the lane whose boundaries and collars guide the eye through the others

_STEP = 0.04  # seconds; an answer on the time grid may end this much behind the clip
_EDGE, _HEADING, _TITLE, _SPECTROGRAM, _TICKS, _NOTE = 0.12, 0.24, 0.25, 1.05, 0.2, 0.16  # inches
_GAP, _SWATCH = 0.14, 0.16
_MAX_ROWS = 4  # more simultaneous events share this height
_COLLARS = "collar of event-based F1: 0.2 s, at offsets 20 % of a longer event"


@dataclass(frozen=True)
class Lane:
    """What one system says about a clip.

    Args:
        unreadable: the text of an answer that no event could be read from and that does not say "none"; such an answer
            is drawn as what it is, not as one without events. None for a readable one.
        note: what is not seen in the lane, written below the clip.
    """

    name: str
    events: Sequence[Event]
    unreadable: str | None = None
    note: str = ""


@dataclass(frozen=True)
class ClipPicture:
    """One clip and what each system says about it.

    Args:
        duration: of the audio, in seconds.
        lanes: from top to bottom; the boundaries of the one called "reference" are drawn through all lanes.
        captions: whether labels are free text, which is never outside of the classes.
    """

    title: str
    waveform_path: Path
    duration: float
    lanes: Sequence[Lane]
    captions: bool = False

    @property
    def labels(self) -> set[str]:
        """Every label of every lane."""
        return {event.label for lane in self.lanes for event in lane.events}


@dataclass(frozen=True)
class Sheet:
    """What holds for all clips of a picture.

    Args:
        heading, subheading: lines above the clips; empty for none.
        classes: of the whole run, in the same order for every picture of it, since they decide the colours. Empty where
            labels are free text, or no run is known.
    """

    heading: str = ""
    subheading: str = ""
    classes: Sequence[str] = field(default=())


def answer_lane(name: str, answer: ParsedAnswer, text: str, duration: float) -> Lane:
    """An answer as a lane: cut to the clip, where it claims times beyond its end, which a note says."""
    if not answer.ok:
        return Lane(name, [], unreadable=text)
    shown = [Event(e.onset, min(e.offset, duration), e.label) for e in answer.events if e.onset < duration]
    late = len(answer.events) - len(shown)
    cut = sum(e.onset < duration and e.offset > duration + _STEP + 1e-6 for e in answer.events)
    notes = [f"{late} event(s) begin after the clip's end and are not drawn"] if late else []
    notes += [f"{cut} event(s) outlast the clip and are cut"] if cut else []
    return Lane(name, shown, note="; ".join(notes))


def draw_clips(path: Path, clips: Sequence[ClipPicture], sheet: Sheet | None = None) -> None:
    """Draw one to six clips below each other, 1400 pixels wide, into a file whose ending decides the format.

    A clip is its log-mel spectrogram over one lane per system, with a bar per event. A colour means the same class in
    the whole picture, and in every picture with the same `Sheet.classes`; events at the same time are stacked within
    their lane.

    Raises:
        ValueError: a number of clips out of range, an event outside its clip, a duration that is not the audio's, or an
            unknown ending.
    """
    if not 1 <= len(clips) <= MAX_CLIPS:
        raise ValueError(f"{len(clips)} clips, but a picture holds 1 to {MAX_CLIPS}; draw several pictures")
    for clip in clips:
        _check_clip(clip)
    with plain_style():
        save(clips_figure(clips, sheet or Sheet()), path)


def _check_clip(clip: ClipPicture) -> None:
    if not (math.isfinite(clip.duration) and clip.duration > 0):
        raise ValueError(f"clip {clip.title!r}: duration {clip.duration} s; it must be positive")
    for lane in clip.lanes:
        for event in lane.events:
            # Written so that NaN fails too.
            if not (0 <= event.onset < event.offset <= clip.duration + _STEP + 1e-6):
                raise ValueError(
                    f"clip {clip.title!r}, lane {lane.name!r}: {event} lies outside the clip or has no length; "
                    f"need 0 <= onset < offset <= {clip.duration:g} s; clip or drop it before drawing"
                )


# ---------------------------------------------------------------- layout


@dataclass(frozen=True)
class _Key:
    """One entry of the legend: x and y in inches from the legend's top left, and what it explains."""

    label: str
    text: str
    x: float
    y: float


def clips_figure(clips: Sequence[ClipPicture], sheet: Sheet) -> Figure:
    """The figure that `draw_clips` writes."""
    labels = {label for clip in clips for label in clip.labels}
    captions = {label for clip in clips if clip.captions for label in clip.labels}
    styles = class_styles(sheet.classes, labels, captions)
    heights = [[_lane_height(lane) for lane in clip.lanes] for clip in clips]
    ruler = Ruler()
    longest = max([ruler.width(lane.name, NORMAL) for clip in clips for lane in clip.lanes], default=0.0)
    left = _EDGE + 0.1 + min(max(0.5, longest), 1.6)
    width = WIDTH - left - 0.2
    keys = _legend(labels, styles, any(_reference(clip) for clip in clips), ruler, width)
    legend = keys[-1].y + BAR + 0.1 if keys else 0.0
    head = _HEADING * sum(bool(text) for text in (sheet.heading, sheet.subheading))
    blocks = [
        _TITLE + _SPECTROGRAM + sum(lanes) + _TICKS + _NOTE * len(_notes(clip))
        for clip, lanes in zip(clips, heights, strict=True)
    ]
    page = Page(_EDGE + head + legend + sum(blocks) + _GAP * (len(clips) - 1) + 0.06, left, width, ruler)
    _draw_heading(page, sheet)
    _draw_legend(page, keys, styles, _EDGE + head)
    top = _EDGE + head + legend
    for clip, lanes, block in zip(clips, heights, blocks, strict=True):
        _draw_clip(page, top, clip, lanes, styles)
        top += block + _GAP
    return page.figure


def _lane_height(lane: Lane) -> float:
    _, rows = stack(lane.events)
    return LANE_PAD * 2 + BAR * min(max(1, rows), _MAX_ROWS)


def _reference(clip: ClipPicture) -> list[Event]:
    return [event for lane in clip.lanes if lane.name.lower() == REFERENCE for event in lane.events]


def _notes(clip: ClipPicture) -> list[str]:
    return [f"{lane.name}: {lane.note}" for lane in clip.lanes if lane.note]


def _draw_heading(page: Page, sheet: Sheet) -> None:
    y = _EDGE + _HEADING / 2
    if sheet.heading:
        bold = 1.15  # as wide as plain text
        shown = page.ruler.fit(sheet.heading, bold * (LARGE + 1), WIDTH - 2 * _EDGE)
        page.text(_EDGE, y, shown, LARGE + 1, weight="bold")
        y += _HEADING
    if sheet.subheading:
        page.text(_EDGE, y, page.ruler.fit(sheet.subheading, NORMAL, WIDTH - 2 * _EDGE), NORMAL, GREY)


def _legend(labels: set[str], styles: Styles, has_reference: bool, ruler: Ruler, width: float) -> list[_Key]:
    """The legend's entries, flowing over as many lines as needed.

    With more labels than looks it would be ambiguous, so the labels are left out; the texts at the bars remain.
    """
    known = sorted(label for label in labels - {""} if styles.by_label[label].known) if styles.distinct else []
    entries = [(label, label) for label in known]
    if "" in labels:
        entries.append(("", "no label"))
    if any(not styles.by_label[label].known for label in labels):
        entries.append((OUT_OF_CLASS, "not a class of the run"))
    if has_reference:
        entries.append(("collar", _COLLARS))
    if styles.note:
        entries.append(("note", styles.note))
    keys, x, y = [], 0.0, 0.0
    for label, text in entries:
        shown = ruler.fit(text, NORMAL, width - _SWATCH - 0.06 if label in ("collar", "note") else 2.8)
        needed = _SWATCH + 0.06 + ruler.width(shown, NORMAL) + 0.2
        if x and x + needed - 0.2 > width:
            x, y = 0.0, y + BAR
        keys.append(_Key(label, shown, x, y))
        x += needed
    return keys


def _draw_legend(page: Page, keys: Sequence[_Key], styles: Styles, top: float) -> None:
    from matplotlib.patches import Rectangle

    for key in keys:
        middle = top + key.y + BAR / 2
        x = page.left + key.x
        if key.label != "note":
            corner = (x / WIDTH, 1 - (middle + 0.055) / page.height)
            look = patch_style(key.label, styles)
            page.figure.add_artist(
                Rectangle(
                    corner, _SWATCH / WIDTH, 0.11 / page.height, transform=page.figure.transFigure,
                    gid=f"legend:{key.label}", **look,
                )
            )  # fmt: skip
        page.text(x + _SWATCH + 0.06, middle, key.text, NORMAL)


def _draw_clip(page: Page, top: float, clip: ClipPicture, heights: Sequence[float], styles: Styles) -> None:
    """One clip's title, spectrogram, lanes, time axis and notes, from ``top`` (inches) downwards."""
    end = max([clip.duration, *(event.offset for lane in clip.lanes for event in lane.events)])
    reference = _reference(clip)
    guides = sorted({time for event in reference for time in (event.onset, event.offset)})
    title = page.ruler.fit(clip.title, LARGE, page.width)
    page.text(page.left, top + _TITLE - 0.07, title, LARGE, va="baseline", weight="bold")
    upper = page.axes(top + _TITLE, _SPECTROGRAM)
    draw_spectrogram(upper, _waveform(clip), end)
    upper.vlines(guides, 0, 1, transform=upper.get_xaxis_transform(), color="white", alpha=0.45, linewidth=0.6)
    total = sum(heights)
    lower = page.axes(top + _TITLE + _SPECTROGRAM, max(total, 1e-3))
    lower.set(xlim=(0, end), ylim=(max(total, 1e-3), 0), yticks=[])
    lower.tick_params(axis="x", labelsize=SMALL, labelcolor=GREY, color=GREY, length=2.5, pad=2, width=0.6)
    lower.xaxis.set(major_locator=ticks(14), major_formatter=lambda seconds, _: f"{seconds:g}")
    lower.spines[["top", "left", "right"]].set_visible(False)
    lower.spines["bottom"].set(color=GREY, linewidth=0.6)
    y = 0.0
    for number, (lane, height) in enumerate(zip(clip.lanes, heights, strict=True)):
        lower.axhspan(y, y + height, color="#f2f2f2" if number % 2 == 0 else "white", linewidth=0, zorder=0)
        shown = page.ruler.fit(lane.name, NORMAL, page.left - 0.1 - _EDGE)
        middle = top + _TITLE + _SPECTROGRAM + y + height / 2
        page.text(page.left - 0.08, middle, shown, NORMAL, ha="right", va="center")
        draw_lane(page, lower, (y, height), lane.events, lane.unreadable, end, styles)
        y += height
    draw_collars(lower, collars(reference), (0, total), end, styles)
    lower.vlines(guides, 0, total, color=DARK, alpha=0.4, linewidth=0.6, zorder=3)
    below = top + _TITLE + _SPECTROGRAM + total
    page.text(page.left - 0.16, below + 0.107, "time (s)", SMALL, colour=GREY, ha="right")
    for number, note in enumerate(_notes(clip)):
        y = below + _TICKS + _NOTE * (number + 0.5)
        page.text(page.left, y, page.ruler.fit(note, SMALL, page.width), SMALL, colour=GREY, style="italic")


def _waveform(clip: ClipPicture) -> np.ndarray:
    waveform = read_audio(clip.waveform_path, RATE)
    seconds = len(waveform) / RATE
    if abs(seconds - clip.duration) > LENGTH_TOLERANCE:
        raise ValueError(
            f"clip {clip.title!r}: duration {clip.duration:g} s, but {clip.waveform_path} lasts {seconds:g} s; "
            "give the audio's own duration"
        )
    return waveform
