"""Tables show the numbers, mark the best, and name mistakes."""

from __future__ import annotations

import math
import sys

import pytest

from timepro.tables import print_table, results_table

ROWS = [("SFT", {"f1": 0.41234, "iou": 0.5, "error": 0.3, "n": 100}), ("GRPO [new]", {"f1": 0.5, "error": 0.2, "n": 9})]
COLUMNS = [("f1", "Eb-F1", ".3f"), ("iou", "mIoU", ".1%"), ("error", "error", ".2f", "-"), ("n", "clips", ".0f", "")]


def bold(table):
    return {cell.plain for column in table.columns[1:] for cell in column.cells if cell.style == "bold"}


def test_tables_show_the_numbers_and_mark_the_best(capsys):
    table = results_table("Event-based F1 [test]", ROWS, COLUMNS)
    print_table(table)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["Event-based", "F1", "[test]"]
    assert lines[1] == ["Eb-F1", "mIoU", "error", "clips"]
    assert lines[-2:] == [["SFT", "0.412", "50.0%", "0.30", "100"], ["GRPO", "[new]", "0.500", "-", "0.20", "9"]]
    assert bold(table) == {"0.500", "0.20"}


def test_ties_are_both_best_and_nan_never_is():
    rows = [("a", {"x": 0.50001}), ("b", {"x": 0.5}), ("c", {"x": math.nan}), ("d", {"x": 0.1})]
    cells = list(results_table("t", rows, [("x", "x", ".2f")]).columns[1].cells)
    assert [(c.plain, c.style) for c in cells] == [("0.50", "bold"), ("0.50", "bold"), ("nan", ""), ("0.10", "")]


def test_a_file_gets_whole_lines_without_colour_codes(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    columns = [(f"k{i}", f"a heading {i}", ".3f") for i in range(15)]
    table = results_table("wide", [(n, {f"k{i}": i + 0.5 for i in range(15)}) for n in "ab"], columns)
    with open(tmp_path / "out.txt", "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        print_table(table)
    text = (tmp_path / "out.txt").read_text()
    assert "\x1b" not in text
    header = next(line for line in text.splitlines() if "heading" in line)
    assert all(f"a heading {i}" in header for i in range(15))
    assert "14.500" in text


def test_a_table_as_markdown_keeps_its_signs_and_its_best(capsys):
    rows = [("a|b_c", {"x": 0.5}), ("[plain] *d*", {"x": 0.25})]
    print_table(results_table("a <title>", rows, [("x", "F1 | x", ".2f")]), "markdown")
    assert capsys.readouterr().out.splitlines()[:6] == [
        "**a \\<title>**",
        "",
        "|  | F1 \\| x |",
        "| --- | ---: |",
        "| a\\|b\\_c | **0.50** |",
        "| \\[plain] \\*d\\* | 0.25 |",
    ]


def test_a_table_as_latex_escapes_what_latex_reads(capsys):
    rows = [("a & b_c #1 50% $2", {"x": 0.5}), ("[0.1, 0.2] {~^\\}", {"x": 0.25})]
    print_table(results_table("100 %", rows, [("x", "F1", ".2f")]), "latex")
    assert capsys.readouterr().out.splitlines()[:9] == [
        "% 100 %",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & F1 \\",
        r"\midrule",
        r"a \& b\_c \#1 50\% \$2 & \textbf{0.50} \\",
        # A bracket behind a row's end would be read as the space to the next row.
        r"{[}0.1, 0.2] \{\textasciitilde{}\textasciicircum{}\textbackslash{}\} & 0.25 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_table_mistakes_are_named():
    with pytest.raises(ValueError, match=r"no row has a value 'f2'; values here: error, f1, iou, n"):
        results_table("t", ROWS, [("f2", "F2", ".3f")])
    with pytest.raises(ValueError, match=r"column 'f1': '<' must be"):
        results_table("t", ROWS, [("f1", "F1", ".3f", "<")])
    with pytest.raises(ValueError, match=r"column 'f1': format '.3q' does not work"):
        results_table("t", ROWS, [("f1", "F1", ".3q")])
