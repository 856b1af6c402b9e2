"""A table as Markdown or LaTeX, for a page or a paper: `--format` of the commands that print tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "[": "{[}", **{sign: rf"\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def as_markdown(table: Table) -> str:
    """A table of GitHub's Markdown, its title as a bold line above it."""
    headings, rows = _texts(table)
    marks = ["---:" if column.justify == "right" else "---" for column in table.columns]
    lines = [_markdown_row([_markdown(cell) for cell in headings]), _markdown_row(marks)]
    lines += [_markdown_row([_markdown(cell) for cell in row]) for row in rows]
    title = _plain(table.title)
    return "\n".join(([f"**{_markdown(Text(title))}**", ""] if title else []) + lines) + "\n"


def as_latex(table: Table) -> str:
    """A `tabular` of LaTeX with the rules of the package booktabs, its title as a comment above it."""
    headings, rows = _texts(table)
    columns = "".join("r" if column.justify == "right" else "l" for column in table.columns)
    lines = [
        *(f"% {line}" for line in _plain(table.title).splitlines()),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
    ]
    if any(cell.plain for cell in headings):
        lines += [_latex_row(headings), r"\midrule"]
    lines += [_latex_row(row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _texts(table: Table) -> tuple[list[Text], list[list[Text]]]:
    headings = [_text(column.header) for column in table.columns]
    rows = [
        list(row) for row in zip(*([_text(cell) for cell in column.cells] for column in table.columns), strict=True)
    ]
    return headings, rows


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))


def _plain(title: object) -> str:
    return "" if title is None else _text(title).plain


def _is_bold(cell: Text) -> bool:
    return bool(cell.plain) and "bold" in str(cell.style)


def _markdown(cell: Text) -> str:
    text = re.sub(r"([\\`*_<|\[])", r"\\\1", " ".join(cell.plain.split()))
    return f"**{text}**" if _is_bold(cell) else text


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex_row(cells: list[Text]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(cell: Text) -> str:
    text = "".join(_escaped(" ".join(cell.plain.split())))
    return rf"\textbf{{{text}}}" if _is_bold(cell) else text


def _escaped(text: str) -> Iterator[str]:
    for sign in text:
        yield _LATEX.get(sign, sign)
