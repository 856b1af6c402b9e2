"""Pictures and tables: what is asked for is drawn and shown, and what cannot be drawn is refused."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from timepro.events import Event
from timepro.tables import print_table, results_table

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.image import imread  # noqa: E402

from timepro import curves, plots  # noqa: E402
from timepro.plots import ClipPicture, draw_clips, draw_curves  # noqa: E402

DOG, CAT = Event(0.2, 0.8, "dog_bark"), Event(1.0, 1.9, "cat_meow")


@pytest.fixture
def clip(tmp_path):
    """Makes clips of two seconds: a 1 kHz tone in the first, silence in the second."""
    time = np.arange(32000) / 16000
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * time) * (time < 1), 16000)

    def make(*lanes: tuple[str, list[Event]], duration: float = 2.0) -> ClipPicture:
        return ClipPicture("clip", path, duration, list(lanes))

    return make


def bars(figure):
    """(label, its patch, its axes or None for the legend) of every bar."""
    found = [(a, p) for a in figure.axes for p in a.patches] + [(None, p) for p in figure.artists]
    return [(p.get_gid().split(":")[1], p, a) for a, p in found if p.get_gid()]


def test_clips_are_written_at_their_size_and_leave_nothing_else(clip, tmp_path):
    folder = tmp_path / "new" / "pictures"
    one = clip(("reference", [DOG, CAT]), ("SFT", [DOG]))
    draw_clips(folder / "one.png", [one])
    draw_clips(folder / "six.png", [one] * 6)
    assert sorted(p.name for p in folder.iterdir()) == ["one.png", "six.png"]
    small, large = imread(folder / "one.png"), imread(folder / "six.png")
    assert small.shape[1] == large.shape[1] == 1400
    assert 4 * small.shape[0] < large.shape[0] < 6 * small.shape[0]  # one legend, six clips


def test_a_failed_write_keeps_the_old_picture_and_no_rest(clip, tmp_path, monkeypatch):
    path = tmp_path / "pictures" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("timepro.canvas.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        draw_clips(path, [clip(("reference", [DOG]))])
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_same_label_same_colour_in_every_lane_clip_and_the_legend(clip, tmp_path):
    clips = [clip(("reference", [DOG, CAT]), ("SFT", [CAT])), clip(("reference", [CAT]), ("SFT", [DOG, DOG]))]
    found = bars(plots._clips_figure(clips))
    colours = {label: {to_hex(p.get_facecolor()) for name, p, _ in found if name == label} for label, *_ in found}
    assert {label: len(c) for label, c in colours.items()} == {"dog_bark": 1, "cat_meow": 1}
    assert colours["dog_bark"] != colours["cat_meow"]
    assert sorted(label for label, _, axes in found if axes is None) == ["cat_meow", "dog_bark"]


def test_pixels_of_a_bar_lie_between_its_onset_and_offset(clip, tmp_path):
    path = tmp_path / "a.png"
    draw_clips(path, [clip(("SFT", [Event(0.5, 1.5, "a")]))])
    colour = np.array([int(plots.PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.rint(imread(path)[..., :3] * 255)
    rows, columns = np.nonzero(np.abs(pixels - colour).max(-1) <= 1)
    columns = columns[rows > pixels.shape[0] // 2]  # the legend is in the upper half
    axes = plots._clips_figure([clip(("SFT", [Event(0.5, 1.5, "a")]))]).axes[1].get_position()
    left, width = axes.x0 * 1400, axes.width * 1400
    assert columns.min() == pytest.approx(left + 0.25 * width, abs=1.5)
    assert columns.max() + 1 == pytest.approx(left + 0.75 * width, abs=1.5)


def test_more_labels_than_colours_still_differ():
    labels = [f"label-{i}" for i in range(32)]
    assert len(set(plots.label_styles(labels).values())) == 32


def test_only_the_reference_draws_guides(clip):
    def guides(name):
        lines = plots._clips_figure([clip((name, [DOG, CAT]), ("SFT", [Event(0.3, 0.7, "x")]))]).axes[1].collections
        return sorted(segment[0][0] for part in lines for segment in part.get_segments())

    assert guides("reference") == [0.2, 0.8, 1.0, 1.9]
    assert guides("GRPO") == []


def test_overlapping_events_never_cover_each_other(clip):
    events = [Event(0.1 * i, 0.1 * i + 0.5, "abcde"[i % 5]) for i in range(14)] + [DOG, DOG]
    drawn = [p.get_bbox() for _, p, axes in bars(plots._clips_figure([clip(("SFT", events))])) if axes]
    assert len(drawn) == len(events)
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1e-9 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1e-9


def test_no_two_texts_overlap(clip):
    events = [Event(0.05 * i, 0.05 * i + 0.04, "a long label") for i in range(20)]
    lanes = [("reference", [DOG, CAT]), ("a system with an endless name " * 3, events), ("empty", [])]
    figure = plots._clips_figure([clip(*lanes), clip(*lanes)])
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    texts = [*figure.texts, *(t for a in figure.axes for t in [*a.texts, *a.get_xticklabels(), *a.get_yticklabels()])]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]
    assert len(boxes) > 30
    for i, (first, a) in enumerate(boxes):
        assert a.x0 >= 0 and a.x1 <= 1400, first
        for second, b in boxes[:i]:
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 2 or b.y1 <= a.y0 + 2  # line spacing may touch
            assert apart, (first, second)


def test_empty_lanes_no_lanes_and_formula_signs_work(clip, tmp_path):
    draw_clips(tmp_path / "a.png", [clip(("reference", []), ("SFT", []))])
    draw_clips(tmp_path / "b.png", [clip()])
    draw_clips(tmp_path / "c.png", [clip(("$x_{", [Event(0, 2, "costs $5_{ or $6")]))])
    assert "no events" in [t.get_text() for t in plots._clips_figure([clip(("SFT", []))]).axes[1].texts]


@pytest.mark.parametrize(
    "event",
    [Event(0.5, 2.1, "a"), Event(-0.1, 1, "a"), Event(1, 1, "a"), Event(1.5, 1.0, "a"), Event(math.nan, 1, "a")],
)
def test_events_outside_the_clip_are_refused(clip, tmp_path, event):
    with pytest.raises(ValueError, match=r"'clip', lane 'GRPO': Event.*lies outside"):
        draw_clips(tmp_path / "a.png", [clip(("reference", [DOG]), ("GRPO", [event]))])
    assert not (tmp_path / "a.png").exists()


def test_wrong_duration_and_number_of_clips_are_refused(clip, tmp_path):
    with pytest.raises(ValueError, match=r"duration 3 s, but .*tone.wav lasts 2 s"):
        draw_clips(tmp_path / "a.png", [clip(duration=3.0)])
    with pytest.raises(ValueError, match="must be positive"):
        draw_clips(tmp_path / "a.png", [clip(duration=math.nan)])
    for number in (0, 7):
        with pytest.raises(ValueError, match=f"{number} clips"):
            draw_clips(tmp_path / "a.png", [clip()] * number)


def test_the_spectrogram_shows_a_tone_where_and_when_it_sounds(clip):
    image = plots._clips_figure([clip(("reference", []))]).axes[0].images[0]
    decibels, (start, stop, *_) = image.get_array(), image.get_extent()
    times = start + (np.arange(decibels.shape[1]) + 0.5) * (stop - start) / decibels.shape[1]
    band = (decibels[:, times < 0.9].mean(1).argmax() + 1) / 97  # of the mel axis
    assert 700 * (10 ** (band * 2840.02 / 2595) - 1) == pytest.approx(1000, rel=0.03)
    loud = decibels.max(0) > decibels.max() - 3
    assert times[loud].max() == pytest.approx(1.0, abs=0.02)


def test_silence_is_drawn_dark(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    figure = plots._clips_figure([ClipPicture("silence", tmp_path / "silence.wav", 1.0, [])])
    image = figure.axes[0].images[0]
    assert image.norm(image.get_array()).max() < 0.05


def test_curves_are_written_with_a_panel_a_metric(tmp_path):
    series = {"loss": [(i, 1 / (i + 1)) for i in range(50)], "empty": [], "gaps": [(0, 1.0), (1, math.nan), (2, 2.0)]}
    draw_curves(tmp_path / "c.png", series, "a run")
    assert [p.name for p in tmp_path.iterdir()] == ["c.png"]
    assert imread(tmp_path / "c.png").shape[1] == 1400
    panels = curves._curves_figure(series, "a run").axes
    assert [p.get_title(loc="left") for p in panels] == ["loss", "empty", "gaps  (1 not finite)"]
    thin, bold = panels[0].lines
    assert thin.get_xydata().tolist() == [list(map(float, point)) for point in series["loss"]]
    assert thin.get_linewidth() < bold.get_linewidth()
    with pytest.raises(ValueError, match="no series"):
        draw_curves(tmp_path / "d.png", {}, "a run")


def test_running_mean_against_a_plain_loop():
    rng = np.random.default_rng(0)
    values = rng.normal(size=100)
    values[[0, 30, 31, 99]] = np.nan
    smooth = curves._running_mean(values)
    for i in range(100):
        half = max(1, min(5, i, 99 - i))
        window = [v for v in values[max(0, i - half) : i + half + 1] if not math.isnan(v)]
        expected = math.nan if math.isnan(values[i]) else sum(window) / len(window)
        assert smooth[i] == pytest.approx(expected, nan_ok=True)


def test_importing_costs_no_matplotlib():
    code = "import sys, timepro.plots; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---------------------------------------------------------------- tables

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


def test_table_mistakes_are_named():
    with pytest.raises(ValueError, match=r"no row has a value 'f2'; values here: error, f1, iou, n"):
        results_table("t", ROWS, [("f2", "F2", ".3f")])
    with pytest.raises(ValueError, match=r"column 'f1': '<' must be"):
        results_table("t", ROWS, [("f1", "F1", ".3f", "<")])
    with pytest.raises(ValueError, match=r"column 'f1': format '.3q' does not work"):
        results_table("t", ROWS, [("f1", "F1", ".3q")])
