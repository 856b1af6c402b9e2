"""The ending of a picture's file decides what is written into it, for every command that writes one."""

from __future__ import annotations

import argparse
import itertools
import re
import zlib
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from timepro.cli import COMMANDS, command_parser, main
from timepro.plots.canvas import PALETTE, plain_style, save
from timepro.plots.files import FORMATS, beside, default_name, picture_path

MAGIC = {"png": b"\x89PNG", "jpg": b"\xff\xd8\xff", "pdf": b"%PDF-", "svg": b"<?xml"}


def figure() -> Figure:
    one = Figure(figsize=(4, 1))
    FigureCanvasAgg(one)
    axes = one.add_axes((0, 0, 1, 1))
    for i, colour in enumerate(PALETTE):
        axes.barh(0, 1, left=i, color=colour)
    axes.text(0.5, 0, "dog_bark")
    return one


@pytest.mark.parametrize("ending", [*FORMATS, ".PDF"])
def test_the_ending_decides_the_format(tmp_path: Path, ending: str) -> None:
    for name in "ab":
        with plain_style():
            save(figure(), tmp_path / f"{name}{ending}")
    content = (tmp_path / f"a{ending}").read_bytes()
    assert content.startswith(MAGIC[FORMATS[ending.lower()]])
    assert content == (tmp_path / f"b{ending}").read_bytes()  # no date, no random names


def test_text_stays_text_in_vector_files(tmp_path: Path) -> None:
    with plain_style():
        save(figure(), tmp_path / "a.svg")
        save(figure(), tmp_path / "a.pdf")
    assert ">dog_bark</text>" in (tmp_path / "a.svg").read_text()
    pdf = (tmp_path / "a.pdf").read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    pages = [zlib.decompress(stream) for stream in streams if stream[:1] == b"x"]
    blocks = [block for page in pages for block in re.findall(rb"BT\n(.*?)ET", page, re.DOTALL)]
    shown = [b"".join(re.findall(rb"\((.*?)\)", block)).replace(b"\0", b"") for block in blocks]
    assert b"dog_bark" in shown
    assert b"/FontFile2" in pdf  # the font is there as outlines that can be edited, not as Type 3 drawings


def test_a_png_has_all_its_colours(tmp_path: Path) -> None:
    with plain_style():
        save(figure(), tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    assert image.mode in ("RGB", "RGBA")  # a palette of few colours gives two classes the same one
    found = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in PALETTE} <= found


def picture_commands() -> list[list[str]]:
    """Every command line that takes `--out` for a picture, from the commands' own parsers."""
    found = []

    def walk(parser: argparse.ArgumentParser, words: list[str]) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    walk(inner, [*words, name])
            elif action.type is picture_path:
                found.append([*words, *("gone" for a in parser._actions if not a.option_strings)])

    for name, *_ in COMMANDS:
        walk(command_parser(name), [name])
    return found


def test_an_unknown_ending_is_refused_before_anything_else_by_all_that_draw(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = picture_commands()
    known = {("plot", "clip"), ("plot", "errors"), ("data", "show"), ("attention", "gone")}
    assert {tuple(command[:2]) for command in commands} >= known
    for command in commands:
        for name in ("a.gif", "a", "a.pdf.zip"):
            with pytest.raises(SystemExit) as ended:
                main([*command, "--out", name])
            assert ended.value.code == 2
            error = capsys.readouterr().err
            assert name in error and all(ending in error for ending in FORMATS), (command, error)
    with pytest.raises(SystemExit):
        main(["report", "gone", "--out", "a.pdf"])
    assert "ends in .html" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_default_names_never_meet() -> None:
    given = [("clip", "a"), ("clip", "b"), ("clip", "a", "b"), ("step1", "a"), ("step11", "a")]
    given += [("clip", name) for name in ("a+b", "a/b", "a-b", "a b", "a.b", "ä", "x" * 300, "x" * 301)]
    names = [default_name(*one) for one in given]
    for (a, first), (b, second) in itertools.combinations(zip(given, names, strict=True), 2):
        assert first != second, (a, b)
    assert names[0] == "clip-a.png" and all("/" not in name and len(name.encode()) < 255 for name in names)
    assert default_name("attention", "a", unseen=("x",)) != default_name("attention", "a", unseen=("y",))
    assert (beside(Path("d/a.jsonl")), beside(Path("a.json"))) == (Path("d/a.png"), Path("a.json.png"))
