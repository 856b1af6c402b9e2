"""What the pictures share: a page measured in inches, texts that fit, files written in one step.

Figures are made on a canvas of their own, so no backend is chosen for the rest of the program, and matplotlib is
imported where a picture is drawn, so importing this module costs nothing.
"""

from __future__ import annotations

import io
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.plots.files import VECTOR, picture_format
from timepro.system.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

DPI, WIDTH = 140, 10.0  # 1400 pixels
VECTOR_DPI = 300  # of the spectrograms in a PDF or SVG
SMALL, NORMAL, LARGE = 7.5, 8.5, 10.0  # points
GREY, DARK = "#6b6b6b", "#1c1c1c"
# Okabe and Ito (2008) without their black, which texts have, and five more as far from them as possible, also as seen
# with the common colour vision deficiencies.
PALETTE = (
    "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#3C0078", "#003C00", "#1414E6",
    "#00F0C8", "#8C64F0",
)  # fmt: skip


class Ruler:
    """Measures texts, in inches."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import RendererAgg

        self._renderer = RendererAgg(8, 8, DPI)

    def width(self, text: str, size: float) -> float:
        """Inches that one line of text takes at a size in points."""
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=size)
        return self._renderer.get_text_width_height_descent(text, font, ismath=False)[0] / DPI

    def fit(self, text: str, size: float, width: float) -> str:
        """The text, shortened by an ellipsis where it is wider than ``width``."""
        text = " ".join(text.split())  # a line break would leave its place
        if self.width(text, size) <= width:
            return text
        kept = text
        while kept and self.width(kept + "…", size) > width:
            kept = kept[:-1]
        return kept.rstrip(" _-") + "…"


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, height: float, left: float, width: float, ruler: Ruler) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height, self.left, self.width, self.ruler = math.ceil(height * DPI) / DPI, left, width, ruler
        self.figure = Figure(figsize=(WIDTH, self.height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, top: float, height: float) -> Axes:
        """New axes over the page's width, ``top`` inches down."""
        bottom = 1 - (top + height) / self.height
        return self.figure.add_axes((self.left / WIDTH, bottom, self.width / WIDTH, height / self.height))

    def text(self, x: float, y: float, text: str, size: float, colour: str = DARK, **style: Any) -> None:
        """Write a text at x, y (inches), centred on y unless ``va`` says otherwise; size in points."""
        style = {"va": "center"} | style
        # Labels are data: a "$" in one must not start a formula.
        self.figure.text(x / WIDTH, 1 - y / self.height, text, fontsize=size, color=colour, parse_math=False, **style)


def ticks(most: int, whole: bool = False) -> MaxNLocator:
    """Places at most this many steps between round numbers, ``whole`` ones for counts."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, steps=[1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10], integer=whole)


def plain_style() -> AbstractContextManager[None]:
    """Settings that a user's matplotlibrc must not change."""
    import matplotlib

    return matplotlib.rc_context(
        {"font.family": "DejaVu Sans", "hatch.linewidth": 0.5, "savefig.bbox": None, "axes.unicode_minus": True,
         # Labels are data: a "$" in one must not start a formula.
         "text.usetex": False, "text.parse_math": False, "axes.facecolor": "white", "figure.facecolor": "white",
         # Texts of a PDF or SVG stay texts: they can be searched, copied, and edited.
         "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "timepro"}
    )  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's ending, in one step: readers see the old file or the new one.

    Its folder is made where needed. The same figure gives the same bytes.

    Raises:
        ValueError: an ending that no picture is written with.
    """
    path = Path(path)
    kind = picture_format(path)
    settings: dict[str, Any] = {"format": kind, "dpi": VECTOR_DPI if kind in VECTOR else DPI}
    if kind in VECTOR:
        settings["metadata"] = {"CreationDate" if kind == "pdf" else "Date": None}
    elif kind == "jpg":
        settings["pil_kwargs"] = {"quality": 92, "subsampling": 0}  # thin lines and texts blur with less
    content = io.BytesIO()
    figure.savefig(content, **settings)
    write_bytes(path, content.getvalue())
