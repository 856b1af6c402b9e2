"""Pictures of clips: what is asked for is drawn, and what cannot be drawn is refused."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from matplotlib.colors import to_hex
from matplotlib.image import imread

from timepro.answers import parse_answer
from timepro.events import Event
from timepro.metrics.event_based import event_f1
from timepro.plots.canvas import PALETTE
from timepro.plots.clips import ClipPicture, Lane, Sheet, answer_lane, clips_figure, draw_clips
from timepro.plots.lanes import OUT_OF_CLASS, collars

DOG, CAT = Event(0.2, 0.8, "dog_bark"), Event(1.0, 1.9, "cat_meow")


@pytest.fixture
def clip(tmp_path):
    """Makes clips of two seconds: a 1 kHz tone in the first, silence in the second."""
    time = np.arange(32000) / 16000
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * time) * (time < 1), 16000)

    def make(*lanes: tuple[str, list[Event]], duration: float = 2.0) -> ClipPicture:
        return ClipPicture("clip", path, duration, [Lane(*lane) for lane in lanes])

    return make


def drawn(figure, kind):
    """(label, its patch) of every "event", "legend" or "collar"."""
    found = [p for a in figure.axes for p in a.patches] + list(figure.artists)
    named = [(p.get_gid().partition(":"), p) for p in found if p.get_gid()]
    return [(label, p) for (what, _, label), p in named if what == kind]


def figure_of(*clips, **sheet):
    return clips_figure(clips, Sheet(**sheet))


def texts_of(figure):
    return [t.get_text() for t in [*figure.texts, *(t for a in figure.axes for t in a.texts)]]


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

    monkeypatch.setattr("timepro.system.files.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        draw_clips(path, [clip(("reference", [DOG]))])
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_same_label_same_colour_in_every_lane_clip_and_the_legend(clip):
    clips = [clip(("reference", [DOG, CAT]), ("SFT", [CAT])), clip(("reference", [CAT]), ("SFT", [DOG, DOG]))]
    figure = figure_of(*clips)
    found = [*drawn(figure, "event"), *drawn(figure, "legend")]
    labels = (DOG.label, CAT.label)
    colours = {label: {to_hex(p.get_facecolor()) for name, p in found if name == label} for label in labels}
    assert {label: len(c) for label, c in colours.items()} == {"dog_bark": 1, "cat_meow": 1}
    assert colours["dog_bark"] != colours["cat_meow"]
    assert sorted(label for label, _ in drawn(figure, "legend")) == ["cat_meow", "collar", "dog_bark"]


def test_a_class_keeps_its_colour_whatever_else_a_picture_shows(clip):
    classes = ["alarm", "cat_meow", "dog_bark", "siren"]

    def look(*lanes):
        figure = figure_of(clip(*lanes), classes=classes)
        return {label: to_hex(p.get_facecolor()) for label, p in drawn(figure, "event")}

    both = look(("reference", [DOG, CAT]))
    assert look(("reference", [DOG]))["dog_bark"] == both["dog_bark"] != both["cat_meow"]
    alone = {label: to_hex(p.get_facecolor()) for label, p in drawn(figure_of(clip(("SFT", [DOG]))), "event")}
    assert alone["dog_bark"] != both["dog_bark"]  # so the classes did decide


def test_a_label_outside_of_the_classes_is_an_outline_and_in_the_legend(clip):
    figure = figure_of(clip(("SFT", [DOG, CAT])), classes=["dog_bark"])
    look = {label: (to_hex(p.get_facecolor()), p.get_linewidth()) for label, p in drawn(figure, "event")}
    assert look["cat_meow"] == ("#ffffff", 0.7) and look["dog_bark"][1] == 0
    assert [label for label, _ in drawn(figure, "legend")] == ["dog_bark", OUT_OF_CLASS]
    caption = ClipPicture("c", clip().waveform_path, 2.0, [Lane("SFT", [CAT])], captions=True)
    assert drawn(figure_of(caption, classes=["dog_bark"]), "event")[0][1].get_linewidth() == 0


def test_an_event_without_a_label_is_explained(clip):
    figure = figure_of(clip(("SFT", [Event(0.2, 0.8, ""), DOG])), classes=["dog_bark"])
    assert [label for label, _ in drawn(figure, "legend")] == ["dog_bark", ""] and "no label" in texts_of(figure)


def test_an_unreadable_answer_is_drawn_as_such_and_an_empty_one_as_empty(clip):
    silent, broken = (answer_lane("SFT", parse_answer(text), text, 2.0) for text in ("none", "hm, <hm> hm"))
    assert "no events" in texts_of(figure_of(ClipPicture("c", clip().waveform_path, 2.0, [silent])))
    figure = figure_of(ClipPicture("c", clip().waveform_path, 2.0, [broken]))
    assert "unreadable answer: hm, <hm> hm" in texts_of(figure) and "no events" not in texts_of(figure)
    assert len(drawn(figure, "unreadable")) == 1


def test_what_lies_beyond_the_clip_is_said(clip):
    text = "dog 0.40-1.20; dog 1.50-3.00; cat 2.50-3.00"
    lane = answer_lane("SFT", parse_answer(text), text, 2.0)
    assert [(e.onset, e.offset) for e in lane.events] == [(0.4, 1.2), (1.5, 2.0)]
    shown = texts_of(figure_of(ClipPicture("c", clip().waveform_path, 2.0, [lane])))
    assert any("1 event(s) begin after the clip's end" in t and "1 event(s) outlast the clip" in t for t in shown)
    rounded = "dog 0.40-2.04"  # up to a step of the grid
    assert answer_lane("SFT", parse_answer(rounded), rounded, 2.0).note == ""


@pytest.mark.parametrize("event", [Event(1.0, 1.5, "a"), Event(1.0, 4.0, "a")])
def test_collars_are_those_of_the_metric(event):
    (low, high, _), (first, last, _) = collars([event])
    step = 1e-6
    for bound, outwards in ((low, -step), (high, step)):
        inner, outer = Event(bound - outwards, event.offset, "a"), Event(bound + outwards, event.offset, "a")
        assert (event_f1([event], [inner]), event_f1([event], [outer])) == (1.0, 0.0)
    for bound, outwards in ((first, -step), (last, step)):
        inner, outer = Event(event.onset, bound - outwards, "a"), Event(event.onset, bound + outwards, "a")
        assert (event_f1([event], [inner]), event_f1([event], [outer])) == (1.0, 0.0)


def test_collars_are_drawn_around_the_references_edges_alone(clip):
    figure = figure_of(clip(("reference", [DOG]), ("SFT", [CAT])))
    spans = sorted((round(p.get_x(), 3), round(p.get_x() + p.get_width(), 3)) for _, p in drawn(figure, "collar"))
    assert spans == [(0.0, 0.4), (0.6, 1.0)]
    assert drawn(figure_of(clip(("SFT", [CAT]))), "collar") == []


def test_the_heading_names_the_run(clip):
    shown = texts_of(figure_of(clip(("SFT", [DOG])), heading="sed_grpo, seed 3", subheading="Eb-F1 0.5"))
    assert {"sed_grpo, seed 3", "Eb-F1 0.5"} <= set(shown)


def test_pixels_of_a_bar_lie_between_its_onset_and_offset(clip, tmp_path):
    path = tmp_path / "a.png"
    draw_clips(path, [clip(("SFT", [Event(0.5, 1.5, "a")]))])
    colour = np.array([int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.rint(imread(path)[..., :3] * 255)
    rows, columns = np.nonzero(np.abs(pixels - colour).max(-1) <= 1)
    columns = columns[rows > pixels.shape[0] // 2]  # the legend is in the upper half
    axes = figure_of(clip(("SFT", [Event(0.5, 1.5, "a")]))).axes[1].get_position()
    left, width = axes.x0 * 1400, axes.width * 1400
    assert columns.min() == pytest.approx(left + 0.25 * width, abs=1.5)
    assert columns.max() + 1 == pytest.approx(left + 0.75 * width, abs=1.5)


def test_only_the_reference_draws_guides(clip):
    def guides(name):
        lines = figure_of(clip((name, [DOG, CAT]), ("SFT", [Event(0.3, 0.7, "x")]))).axes[1].collections
        return sorted(segment[0][0] for part in lines for segment in part.get_segments())

    assert guides("reference") == [0.2, 0.8, 1.0, 1.9]
    assert guides("GRPO") == []


def test_overlapping_events_never_cover_each_other(clip):
    events = [Event(0.1 * i, 0.1 * i + 0.5, "abcde"[i % 5]) for i in range(14)] + [DOG, DOG]
    boxes = [p.get_bbox() for _, p in drawn(figure_of(clip(("SFT", events))), "event")]
    assert len(boxes) == len(events)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1e-9 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1e-9


def test_no_two_texts_overlap(clip):
    events = [Event(0.05 * i, 0.05 * i + 0.04, "a long label") for i in range(20)]
    lanes = [("reference", [DOG, CAT]), ("a system with an endless name " * 3, events), ("empty", [])]
    text = "dog 0.40-1.20; cat 3-4"
    late = ClipPicture("late", clip().waveform_path, 2.0, [answer_lane("SFT", parse_answer(text), text, 2.0)])
    figure = figure_of(clip(*lanes), clip(*lanes), late, classes=["dog_bark"], heading="a run", subheading="its score")
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
    assert "no events" in texts_of(figure_of(clip(("SFT", []))))


@pytest.mark.parametrize(
    "event",
    [Event(0.5, 2.1, "a"), Event(-0.1, 1, "a"), Event(1, 1, "a"), Event(1.5, 1.0, "a"), Event(math.nan, 1, "a")],
)
def test_events_outside_the_clip_are_refused(clip, tmp_path, event):
    with pytest.raises(ValueError, match=r"'clip', lane 'GRPO': Event.*lies outside"):
        draw_clips(tmp_path / "a.png", [clip(("reference", [DOG]), ("GRPO", [event]))])
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("duration", [1.85, 2.15])
def test_a_duration_that_a_manifest_may_state_is_drawn(clip, tmp_path, duration):
    draw_clips(tmp_path / "a.png", [clip(("reference", [Event(0.2, 1.8, "a")]), duration=duration)])
    assert (tmp_path / "a.png").is_file()


def test_wrong_duration_and_number_of_clips_are_refused(clip, tmp_path):
    with pytest.raises(ValueError, match=r"duration 3 s, but .*tone.wav lasts 2 s"):
        draw_clips(tmp_path / "a.png", [clip(duration=3.0)])
    with pytest.raises(ValueError, match="must be positive"):
        draw_clips(tmp_path / "a.png", [clip(duration=math.nan)])
    for number in (0, 7):
        with pytest.raises(ValueError, match=f"{number} clips"):
            draw_clips(tmp_path / "a.png", [clip()] * number)


def test_the_spectrogram_shows_a_tone_where_and_when_it_sounds(clip):
    image = figure_of(clip(("reference", []))).axes[0].images[0]
    decibels, (start, stop, *_) = image.get_array(), image.get_extent()
    times = start + (np.arange(decibels.shape[1]) + 0.5) * (stop - start) / decibels.shape[1]
    band = (decibels[:, times < 0.9].mean(1).argmax() + 1) / 97  # of the mel axis
    assert 700 * (10 ** (band * 2840.02 / 2595) - 1) == pytest.approx(1000, rel=0.03)
    loud = decibels.max(0) > decibels.max() - 3
    assert times[loud].max() == pytest.approx(1.0, abs=0.02)


def test_silence_is_drawn_dark(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    figure = figure_of(ClipPicture("silence", tmp_path / "silence.wav", 1.0, []))
    image = figure.axes[0].images[0]
    assert image.norm(image.get_array()).max() < 0.05


def test_importing_costs_no_matplotlib():
    code = "import sys, timepro.plots.run_clips; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
