"""One lane of a clip's picture: a bar an event, stacked where they overlap, and the collars around the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from timepro.events import Event
from timepro.plots.canvas import DARK, GREY, SMALL, Page
from timepro.plots.class_styles import Style, Styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR, LANE_PAD = 0.215, 0.035  # inches: a bar's height, and what is free above and below the bars of a lane
OUT_OF_CLASS = "\0out of class"  # the legend's key for labels that are no class of the run; no label has a NUL
_COLLAR_S, _COLLAR_SHARE = 0.2, 0.2  # the defaults of `EventReference`
_COLLAR_ALPHA = 0.17
_BAD, _BAD_BACK = "#A1201A", "#FBE3E1"


def stack(events: Sequence[Event]) -> tuple[list[tuple[Event, int]], int]:
    """Each event with its row, so that no two of a row overlap, and the number of rows."""
    ends: list[float] = []
    placed = []
    for event in sorted(events):
        row = next((i for i, end in enumerate(ends) if end <= event.onset), len(ends))
        ends[row:] = [event.offset, *ends[row + 1 :]]
        placed.append((event, row))
    return placed, len(ends)


def collars(reference: Sequence[Event]) -> list[tuple[float, float, str]]:
    """(from, to, label), in seconds, of where a matching onset or offset may lie; two for each event."""
    found = []
    for event in reference:
        offset = max(_COLLAR_S, _COLLAR_SHARE * (event.offset - event.onset))
        found.append((event.onset - _COLLAR_S, event.onset + _COLLAR_S, event.label))
        found.append((event.offset - offset, event.offset + offset, event.label))
    return found


def draw_collars(
    axes: Axes, spans: Sequence[tuple[float, float, str]], over: tuple[float, float], end: float, styles: Styles
) -> None:
    """Shade the collars, in their classes' colours, behind the bars of all lanes, ``over`` these heights."""
    from matplotlib.patches import Rectangle

    low, high = over
    for begin, until, label in spans:
        begin, until = max(begin, 0.0), min(until, end)
        if until > begin:
            colour = styles.by_label[label].colour
            axes.add_patch(
                Rectangle(
                    (begin, low), until - begin, high - low, facecolor=colour, alpha=_COLLAR_ALPHA, linewidth=0,
                    gid=f"collar:{label}", zorder=1,
                )
            )  # fmt: skip


def patch_style(label: str, styles: Styles) -> dict[str, Any]:
    """How a label's rectangle is drawn; also for the legend's own keys."""
    if label == "collar":
        return {"facecolor": GREY, "alpha": _COLLAR_ALPHA, "linewidth": 0}
    style = styles.by_label.get(label)
    if style is None or not style.known:
        return {"facecolor": "white", "edgecolor": DARK, "linewidth": 0.7, "linestyle": (0, (2, 1.5))}
    # A hatch takes the edge's colour; no edge is drawn.
    return {"facecolor": style.colour, "edgecolor": style.ink, "hatch": style.hatch, "linewidth": 0}


def draw_lane(
    page: Page,
    axes: Axes,
    span: tuple[float, float],
    events: Sequence[Event],
    unreadable: str | None,
    end: float,
    styles: Styles,
) -> None:
    """Draw one lane.

    Args:
        span: its top and height in the axes' unit, inches.
        unreadable: the text of an answer that could not be read.
        end: the last second of the time axis.
    """
    from matplotlib.patches import Rectangle

    top, height = span
    if unreadable is not None:
        _draw_unreadable(page, axes, span, unreadable, end)
        return
    if not events:
        axes.text(
            0.06 * end / page.width, top + height / 2, "no events", fontsize=SMALL, color=GREY, style="italic",
            va="center_baseline", zorder=4,
        )  # fmt: skip
        return
    placed, rows = stack(events)
    row_height = (height - 2 * LANE_PAD) / rows
    for event, row in placed:
        y = top + LANE_PAD + row * row_height
        axes.add_patch(
            Rectangle(
                (event.onset, y + 0.008), event.offset - event.onset, row_height - 0.016, zorder=2,
                gid=f"event:{event.label}", **patch_style(event.label, styles),
            )
        )  # fmt: skip
        after = min([e.onset for e, r in placed if r == row and e.onset >= event.offset], default=end)
        if row_height >= 0.15:
            _label_bar(page, axes, event, y + row_height / 2, after, end, styles.by_label[event.label])


def _draw_unreadable(page: Page, axes: Axes, span: tuple[float, float], text: str, end: float) -> None:
    top, height = span
    axes.axhspan(top, top + height, facecolor=_BAD_BACK, linewidth=0, zorder=0.5, gid="unreadable")
    said = " ".join(text.split())
    shown = page.ruler.fit(f"unreadable answer: {said or '(empty)'}", SMALL, page.width - 0.2)
    axes.text(
        0.06 * end / page.width, top + height / 2, shown, fontsize=SMALL, color=_BAD, style="italic",
        va="center_baseline", parse_math=False, zorder=4,
    )  # fmt: skip


def _label_bar(page: Page, axes: Axes, event: Event, y: float, after: float, end: float, style: Style) -> None:
    """Write the label into its bar, or right of it up to ``after`` (seconds), or shortened into it, or leave it."""
    ruler, inch = page.ruler, page.width / end
    label = " ".join(event.label.split())
    pad = 0.045
    needed = ruler.width(label, SMALL) + 2 * pad
    inside, beside = (event.offset - event.onset) * inch, (after - event.offset) * inch
    x, text, colour = event.onset, label, style.ink
    if needed > inside:
        shortened = ruler.fit(label, SMALL, inside - 2 * pad)
        if needed + pad <= beside:
            x, colour = event.offset, DARK
        elif len(shortened) >= 7:
            text = shortened
        else:
            return
    # A hatch would strike the text through, so the plain colour lies behind it.
    plain = {"facecolor": style.colour, "edgecolor": "none", "pad": 0.5} if style.hatch and x == event.onset else None
    axes.text(
        x + pad / inch, y, text, fontsize=SMALL, color=colour, va="center_baseline", parse_math=False, zorder=4,
        bbox=plain,
    )  # fmt: skip
