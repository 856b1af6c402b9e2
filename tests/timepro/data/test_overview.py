"""The summary of a manifest, counted against brute force and by hand, and its picture."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import write_manifest
from timepro.data.overview import draw_overview, overlapping, overview, print_overview, seconds_by_polyphony


def clip(name: str, *events: tuple[float, float, str], duration: float = 4.0, **more: object) -> Clip:
    return Clip(name, Path("/a.wav"), duration, tuple(ManifestEvent(*event) for event in events), **more)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    queries = (Query("a dog", ((0.0, 1.0), (1.2, 2.0))), Query("a cat", ()))
    clips = [
        clip("a", (0.0, 2.0, "Dog"), (1.0, 3.0, "Cat"), (3.0, 3.5, "Dog"), split="train"),
        clip("b", duration=2.0, queries=queries, split="test"),
        clip("c", (0.0, 4.0, "Dog")),
    ]
    write_manifest(tmp_path / "m.jsonl", clips)
    return tmp_path / "m.jsonl"


def test_counts_are_those_of_the_manifest(manifest: Path) -> None:
    found = overview(manifest)
    assert list(found.durations) == [4.0, 2.0, 4.0]
    assert found.splits == {"train": 1, "test": 1, "none stated": 1}
    assert {label: (one.clips, list(one.lengths)) for label, one in found.classes.items()} == {
        "Dog": (2, [2.0, 0.5, 4.0]), "Cat": (1, [2.0]),
    }  # fmt: skip
    assert found.polyphony == pytest.approx([0.5 + 2.0, 1 + 1 + 0.5 + 4, 1.0, 0.0, 0.0])
    assert (found.most, found.overlapping, found.events_a_clip) == (2, 2, {3: 1, 0: 1, 1: 1})
    assert (found.queries, found.absent, found.intervals) == (2, 1, 2)


def test_polyphony_and_overlaps_agree_with_a_raster() -> None:
    rng = random.Random(0)
    for _ in range(300):
        length = rng.randint(1, 30)
        spans = []
        for _ in range(rng.randint(0, 6)):
            onset = rng.randint(0, length - 1)
            spans.append((onset, rng.randint(onset + 1, length)))
        cells = [sum(a <= t < b for a, b in spans) for t in range(length)]
        found = seconds_by_polyphony(spans, length)
        assert found[: max(cells) + 1] == [cells.count(depth) for depth in range(max(cells) + 1)]
        assert not any(found[max(cells) + 1 :])
        pairs = [any(i != j and a < d and c < b for j, (c, d) in enumerate(spans)) for i, (a, b) in enumerate(spans)]
        assert overlapping(spans) == sum(pairs)


def test_tables_show_the_figures(manifest: Path, capsys) -> None:
    print_overview(overview(manifest), "m.jsonl")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = {" ".join(words[:-1]): words[-1] for words in lines}
    assert shown["clips"] == "3" and shown["events"] == "4" and shown["that overlap another"] == "2"
    assert shown["for an absent sound"] == "1" and shown["Dog 3 75.0% 2 0.1"] == "2.00"


def test_the_picture_has_a_bar_a_class_and_keeps_every_value(manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    from timepro.data.overview import _figure
    from timepro.plots.canvas import plain_style

    found = overview(manifest)
    draw_overview(found, tmp_path / "new" / "m.png", "a $title$ that is no formula")
    assert imread(tmp_path / "new" / "m.png").shape[1] == 1400
    with plain_style():
        axes = _figure(found, "m").axes
    drawn = [[bar.get_height() for bar in one.patches] for one in axes[1:]]
    assert [bar.get_width() for bar in axes[0].patches] == [3, 1]
    assert [sum(heights) for heights in drawn] == pytest.approx([3, 4, 3, 100])


@pytest.mark.parametrize("clips", [[clip("a")], [clip("a", (0, 0.001, "x"), (0, 4.0, "y" * 90))]])
def test_sparse_manifests_are_drawn_too(tmp_path: Path, clips: list[Clip], capsys) -> None:
    pytest.importorskip("matplotlib")
    write_manifest(tmp_path / "m.jsonl", clips)
    found = overview(tmp_path / "m.jsonl")
    print_overview(found, "m")
    draw_overview(found, tmp_path / "m.png", "m")
    assert (tmp_path / "m.png").stat().st_size > 1000
