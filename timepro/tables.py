"""Tables of results in the terminal and in log files."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from timepro.table_formats import as_latex, as_markdown

_FILE_WIDTH = 100  # columns, where there is no terminal to ask
_MISSING = "-"
Column = tuple[str, str, str] | tuple[str, str, str, str]


def results_table(title: str, rows: Sequence[tuple[str, Mapping[str, float]]], columns: Sequence[Column]) -> Table:
    """A table with one line per (name, values) and the best value of each column in bold.

    columns: (key, heading, format as in ``format(value, ".3f")``) and, as an optional fourth element, which values
    are better: "+" higher (the default), "-" lower, "" neither, for a count, say. Values that read the same are
    equally good. A row without a column's key shows "-". Values that are not finite are shown and never best.
    Raises ValueError for a key that no row has, a format that does not work, or another fourth element.
    """
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    cells = []
    for key, heading, form, *rest in columns:
        better = rest[0] if rest else "+"
        if better not in ("+", "-", ""):
            raise ValueError(f"table {title!r}, column {key!r}: {better!r} must be '+' (higher is better), '-' or ''")
        if rows and not any(key in values for _, values in rows):
            known = sorted({name for _, values in rows for name in values})
            raise ValueError(f"table {title!r}: no row has a value {key!r}; values here: {', '.join(known) or 'none'}")
        table.add_column(Text(heading), justify="right", no_wrap=True)
        cells.append(_cells(f"table {title!r}, column {key!r}", [values.get(key) for _, values in rows], form, better))
    for number, (name, _) in enumerate(rows):
        table.add_row(Text(name), *(column[number] for column in cells))  # Text: "[...]" in a name is not markup
    return table


def _cells(where: str, values: Sequence[float | None], form: str, better: str) -> list[Text]:
    try:
        shown = [_MISSING if value is None else format(value, form) for value in values]
    except ValueError as problem:
        raise ValueError(f"{where}: format {form!r} does not work ({problem}); use for example '.3f'") from None
    comparable = {i: value for i, value in enumerate(values) if value is not None and math.isfinite(value)}
    best = None
    if better and len(comparable) > 1:  # a value alone is not a winner
        best = shown[(max if better == "+" else min)(comparable, key=lambda i: comparable[i])]
    return [Text(text, style="bold" if i in comparable and text == best else "") for i, text in enumerate(shown)]


def plain_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Text]], prose: int = 2) -> Table:
    """A table of texts: numbers to the right in all columns but the last ones, which are prose."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        is_prose = number >= len(headings) - prose
        table.add_column(Text(heading), justify="left" if is_prose else "right", no_wrap=not is_prose)
    for row in rows:
        table.add_row(*row)
    return table


def print_table(table: Table, form: str = "text") -> None:
    """Print to stdout: as wide as the terminal, or in a file as wide as the table needs, without colour codes.

    Args:
        form: text, markdown or latex.
    """
    if form != "text":
        print({"markdown": as_markdown, "latex": as_latex}[form](table))
        return
    terminal = sys.stdout.isatty()
    if terminal:
        console = Console(file=sys.stdout)
    else:
        # Said explicitly: rich would believe FORCE_COLOR, and assume 80 columns.
        console = Console(file=sys.stdout, width=10_000, force_terminal=False, color_system=None, no_color=True)
        needed = Measurement.get(console, console.options, table).maximum
        console.width = max(_FILE_WIDTH, needed)
    console.print(table, crop=terminal)


def print_lines(lines: Iterable[str], form: str = "text") -> None:
    """Print what is said below a table: as a list in Markdown, as comments in LaTeX."""
    before = {"text": "", "markdown": "- ", "latex": "% "}[form]
    for line in (part for text in lines for part in text.split("\n")):
        print(before + line)
