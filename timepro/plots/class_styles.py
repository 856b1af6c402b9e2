"""How a class looks: one colour and hatch, by the run's classes, so that it is the same in every picture of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from timepro.plots.canvas import DARK, PALETTE

HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")  # tell classes apart once the colours are used up
CAPACITY = len(PALETTE) * len(HATCHES)


@dataclass(frozen=True)
class Style:
    """A bar's look.

    known: whether the label is a class of the run; others are drawn as a dashed outline.
    """

    colour: str
    hatch: str = ""
    known: bool = True

    @property
    def ink(self) -> str:
        """The colour of texts and hatches on it: black or white, whichever is read more easily.

        By relative luminance of WCAG 2, in rough sRGB.
        """
        red, green, blue = ((int(self.colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
        return DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"


UNLABELLED = Style("#5B6770")  # an interval that answers a grounding question
UNKNOWN = Style("#FFFFFF", known=False)


@dataclass(frozen=True)
class Styles:
    """The looks of a picture's labels.

    Args:
        by_label: every label of the picture.
        distinct: whether no two labels look the same.
        note: what a reader has to know beside the legend; empty for nothing.
    """

    by_label: Mapping[str, Style]
    distinct: bool
    note: str = ""


def class_styles(classes: Sequence[str], labels: Collection[str], captions: Collection[str] = ()) -> Styles:
    """The look of each label of a picture.

    Args:
        classes: all classes of the run, always in the same order; empty where labels are free text.
        labels: what the picture shows.
        captions: those of them that are free text and so never outside of the classes.
    """
    note = ""
    if len(classes) > CAPACITY:
        note = f"colours hold for this picture alone: the run has {len(classes)} classes, more than can be told apart"
        classes = ()
    free = set(labels) if not classes else set(captions)
    order = [*classes, *sorted(free - set(classes) - {""})]
    by_label = {"": UNLABELLED} | {label: style_at(i) for i, label in enumerate(order)}
    by_label |= {label: UNKNOWN for label in labels if label not in by_label}
    return Styles({label: by_label[label] for label in {"", *labels}}, len(order) <= CAPACITY, note)


def style_at(index: int) -> Style:
    """The look of the class at a place of the list: a colour of its own first, then a hatch too."""
    return Style(PALETTE[index % len(PALETTE)], HATCHES[index // len(PALETTE) % len(HATCHES)])
