"""Every format of event files: what is written reads back to the same events, and what cannot be written is refused."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.data.event_files import ReadOptions, read_event_file
from timepro.data.event_formats import FORMATS, events_text, write_events
from timepro.data.event_parts import FileEvents
from timepro.data.joining import relabelled
from timepro.data.repairs import Repairs
from timepro.events import Event

SURE = {"tsv", "csv", "jsonl", "raven", "jams", "labelstudio"}
"""Formats with a place for a confidence."""
TABLES = {"tsv", "csv"}


@dataclass(frozen=True)
class Found:
    onset: float
    offset: float
    label: str
    confidence: float | None = None


LABELS = [
    "Dog", "glass breaking", 'a "quoted" bark', '"', "it's; a, comma", "Hündin 犬 🐕", "<b>A & B</b> --> C",
    "&lt;b&gt;", "0.5",
    r"back\slash", "1,2", "# no comment", "WEBVTT", "NOTE x", 'text = "x"', "e\u0301tude", "xmin = 0",
]  # fmt: skip
"""Text that a format's own grammar could take for something else."""


def events(seed: int = 0) -> list[Found]:
    """Events in the order of their onsets, some of which overlap others of the same label."""
    drawn = np.random.default_rng(seed)
    onsets = np.sort(drawn.choice(np.arange(0, 5_000_000), 60, replace=False)) / 1000
    return [
        Found(float(onset), round(float(onset) + 0.001 + int(drawn.integers(0, 200_000)) / 1000, 3),
              LABELS[i % len(LABELS)], round(float(drawn.random()), 4))
        for i, onset in enumerate(onsets)
    ]  # fmt: skip


def as_read(name: str, found: list[Found]) -> tuple[list[Event], list[float | None] | None]:
    kept = [event.confidence for event in found] if name in SURE and found else None
    return [Event(event.onset, event.offset, event.label) for event in found], kept


def in_order(entry: FileEvents) -> FileEvents:
    """TextGrids keep events by tier, so their order is that of the labels."""
    return FileEvents(sorted(entry.events), entry.duration, entry.ok, entry.samples, entry.confidences)


@pytest.mark.parametrize("role", ["reference", "predictions"])
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_reads_back(tmp_path: Path, name: str, role: str) -> None:
    recordings = {"take.wav": events(1), "deep/er/b.c.flac": events(2), 'n "1", ü.wav': events(3)[:1], "silent.wav": []}
    durations = dict.fromkeys(recordings, 6000.5)
    form = FORMATS[name]
    out = tmp_path / (f"all{form.ending}" if form.several else "all")
    paths = write_events(name, recordings, out, durations)
    assert len(paths) == (1 if form.several else 4) and all(path.is_file() for path in paths)
    repairs = Repairs()
    read = read_event_file(out, role, repairs)
    assert not repairs.lines()
    assert len(read) == 4
    for recording, found in recordings.items():
        entry = read[recording if form.several else recording.rsplit(".", 1)[0]]
        wanted, confidences = as_read(name, found)
        entry = in_order(entry) if name == "textgrid" else entry
        assert entry.events == (sorted(wanted) if name == "textgrid" else wanted)
        assert entry.confidences == confidences
        if name in ("jsonl", "textgrid", "jams") or (name == "labelstudio" and found):
            assert entry.duration == 6000.5


@pytest.mark.parametrize("name", FORMATS)
def test_a_single_recording_goes_to_a_file_or_a_stream(tmp_path: Path, name: str) -> None:
    form, found = FORMATS[name], [Found(0.5, 1.5, "Dog", 0.75), Found(3600.0, 3600.04, "Cat")]
    path = tmp_path / f"take{form.ending}"
    assert write_events(name, {"take": found}, path) == [path]
    (entry,) = read_event_file(path, "reference").values()
    assert entry.events == [Event(0.5, 1.5, "Dog"), Event(3600.0, 3600.04, "Cat")]
    assert entry.confidences == ([0.75, None] if name in SURE else None)
    stream = io.StringIO()
    assert write_events(name, {"take": found}, stream) == []
    assert stream.getvalue() == path.read_text(encoding="utf-8") == events_text(name, {"take": found})


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_found_is_a_file_without_events(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"take{FORMATS[name].ending}"
    write_events(name, {"take": []}, path)
    assert read_event_file(path, "reference") == {"take": FileEvents()}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Found(0, 1, "two\nlines"), "a tab, a line break"),
        (Found(0, 1, "a\ttab"), "a tab, a line break"),
        (Found(0, 1, " "), "not a text with something in it"),
        (Found(1, 1.0004, "Dog"), "no time at all, in milliseconds"),
        (Found(2, 1, "Dog"), "no time at all"),
        (Found(-1, 1, "Dog"), "is not a time"),
        (Found(0, float("nan"), "Dog"), "is not a time"),
        (Found(0, 1, "Dog", 1.5), "is not a confidence"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str, event: Found, words: str) -> None:
    path = tmp_path / f"take{FORMATS[name].ending}"
    with pytest.raises(ValueError, match=f"take.wav, event 2: .*{words}"):
        write_events(name, {"take.wav": [Found(0, 1, "Dog"), event]}, path)
    assert not list(tmp_path.iterdir())


def test_a_label_that_a_table_takes_for_a_missing_value_is_written_elsewhere() -> None:
    for name in FORMATS:
        if name in TABLES:
            with pytest.raises(ValueError, match="'None' stands for a missing value"):
                events_text(name, {"a": [Found(0, 1, "None")]})
        else:
            assert "None" in events_text(name, {"a": [Found(0, 1, "None")]})


def test_paths_and_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    found = [Found(0, 1, "Dog")]
    with pytest.raises(ValueError, match="no format 'webvt'; there are .* Did you mean 'webvtt'"):
        events_text("webvt", {"a": found})
    with pytest.raises(ValueError, match=r"are one file; name it with the ending \.jsonl"):
        write_events("jsonl", {"a": found}, tmp_path / "a.json")
    with pytest.raises(ValueError, match="holds one recording, these are 2; .*tsv, csv, jsonl, labelstudio"):
        write_events("audacity", {"a": found, "b": found}, tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"'a\.wav' and of 'a\.mp3'"):
        write_events("webvtt", {"a.wav": found, "a.mp3": found}, tmp_path / "out")
    with pytest.raises(ValueError, match="cannot stand in a table"):
        write_events("tsv", {"a\nb.wav": found}, tmp_path / "a.tsv")
    assert not list(tmp_path.iterdir())


def test_files_never_leave_the_folder(tmp_path: Path) -> None:
    names = ["/etc/a.wav", "../../b.wav", "https://host/c.mp3", r"x\..\..\d.wav"]
    paths = write_events("audacity", {name: [Found(0, 1, "Dog")] for name in names}, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in paths] == ["a.txt", "b.txt", "c.txt", "d.txt"]


def test_overlapping_events_of_one_label_have_tiers_of_their_own(tmp_path: Path) -> None:
    praatio = pytest.importorskip("praatio.textgrid")
    path = tmp_path / "a.TextGrid"
    found = [Found(0, 5, "Dog"), Found(1, 2, "Dog"), Found(2, 6, "Dog"), Found(3, 4, "Dog (2)"), Found(5, 7, "Dog")]
    write_events("textgrid", {"a": found}, path, {"a": 10.0})
    tiers = praatio.openTextgrid(str(path), includeEmptyIntervals=False).tiers
    assert [(tier.name, len(tier.entries)) for tier in tiers] == [("Dog", 2), ("Dog (3)", 2), ("Dog (2)", 1)]
    assert read_event_file(path, "reference")["a"].events == [Event(e.onset, e.offset, e.label) for e in found]
    third = read_event_file(path, "reference", options=ReadOptions(tier="Dog (3)"))["a"]
    assert third.events == [Event(1, 2, "Dog"), Event(2, 6, "Dog")]


# ---------------------------------------------------------------- reading what others write


def label_studio(result: list[object], audio: str = "take.wav", **more: object) -> dict[str, object]:
    return {"id": 7, "data": {"audio": audio}, "annotations": [{"result": result}]} | more


DOG = {"type": "labels", "value": {"start": 0.5, "end": 1.5, "channel": 0, "labels": ["Dog"]}, "original_length": 9.5}


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (label_studio([DOG]), FileEvents([Event(0.5, 1.5, "Dog")], 9.5)),
        (label_studio([]), FileEvents()),
        (label_studio([DOG], predictions=[{"result": []}]), FileEvents([Event(0.5, 1.5, "Dog")], 9.5)),
        (label_studio([DOG, {"type": "choices", "value": {"choices": ["noisy"]}}]),
         FileEvents([Event(0.5, 1.5, "Dog")], 9.5)),
        (label_studio([{"value": {"start": 0, "end": 1, "labels": ["Dog", "Cat"]}}]),
         FileEvents([Event(0, 1, "Dog"), Event(0, 1, "Cat")])),
        ({"data": {"audio": "take.wav"}, "annotations": [{"was_cancelled": True, "result": []}],
          "predictions": [{"result": [{"value": {"start": 0, "end": 1, "labels": ["Dog"]}, "score": 0.5}]}]},
         FileEvents([Event(0, 1, "Dog")], confidences=[0.5])),
        (label_studio([DOG], "/data/upload/3/0a1b2c3d-take.wav"), FileEvents([Event(0.5, 1.5, "Dog")], 9.5)),
        (label_studio([DOG], "/data/local-files/?d=take.wav"), FileEvents([Event(0.5, 1.5, "Dog")], 9.5)),
    ],
)  # fmt: skip
def test_an_export_of_label_studio_is_read(tmp_path: Path, task: object, wanted: FileEvents) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    assert read_event_file(path, "reference") == {"take.wav": wanted}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (label_studio([DOG], annotations=[{"result": []}, {"result": [DOG]}]), "'annotations': 2 of one recording"),
        ({"data": {"audio": "a.wav"}, "annotations": []}, "neither an annotation nor a prediction"),
        (label_studio([{"value": {"start": 0, "end": 1}}]), r"'annotations.result\[0\]': a region without a label"),
        (label_studio([{"value": {"start": 2, "end": 1, "labels": ["Dog"]}}]), "onset 2.0 s is not before offset 1.0"),
        (label_studio([{"value": {"start": 2, "labels": ["Dog"]}}]), "offset: None is not a number of seconds"),
        ({"data": {}, "annotations": [{"result": []}]}, "which is the audio"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_an_export_is_named(tmp_path: Path, task: object, words: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    with pytest.raises(ValueError, match=rf"export\.json: item 0: .*{words}"):
        read_event_file(path, "reference")


def test_subtitles_of_other_programs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "take.vtt"
    path.write_text(
        "\ufeffWEBVTT - by hand\r\n\r\nNOTE\r\nof no use\r\n\r\nfirst\r\n00:01.000 --> 00:02.500 align:start\r\n"
        "<v Anna><b>Dog</b> &amp; cat\r\n\r\n01:00:00.000 --> 01:00:01.000\r\nBell\r\n"
    )
    assert read_event_file(path, "reference") == {
        "take": FileEvents([Event(1.0, 2.5, "Dog & cat"), Event(3600.0, 3601.0, "Bell")])
    }
    path.write_text("WEBVTT\n\n00:01.000 --> 00:02.000\ntwo\nlines\n")
    with pytest.raises(ValueError, match=r"take\.vtt:1: column 'event_label': .*line break"):
        read_event_file(path, "reference")
    path.write_text("hello\n")
    with pytest.raises(ValueError, match=r"take\.vtt: this is not a WebVTT file that can be read"):
        read_event_file(path, "reference")


def test_an_odd_confidence_is_listed_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("filename\tonset\toffset\tevent_label\tconfidence\na\t0\t1\tDog\t-3.2\na\t1\t2\tDog\t0.5\n")
    repairs = Repairs()
    assert read_event_file(path, "predictions", repairs)["a"].confidences == [None, 0.5]
    assert [line.split(" (")[0] for line in repairs.lines()] == ["1 confidence that is no share of 0 to 1: not kept"]


def test_confidences_stay_with_their_events_where_labels_are_left_out() -> None:
    files = {"a": FileEvents([Event(0, 1, "Dog"), Event(1, 2, "Cat")], confidences=[0.25, 0.75])}
    (entry,) = relabelled(files, {"Dog": None, "Cat": "cat"}, set(), "x").values()
    assert entry == FileEvents([Event(1, 2, "cat")], confidences=[0.75])


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize("name", FORMATS)
def test_the_commands_read_every_format(tmp_path: Path, capsys, name: str) -> None:
    """`timepro data table` makes the same manifest of each, and `timepro evaluate` finds no difference to it."""
    from timepro.cli import main

    (tmp_path / "audio").mkdir()
    recordings = {"a.wav": [Found(0.5, 1.5, 'a "dog"'), Found(1.25, 1.75, "cat")], "b.wav": []}
    for recording in recordings:
        soundfile.write(tmp_path / "audio" / recording, np.full(16000 * 2, 0.1), 16000)
    form = FORMATS[name]
    labels = tmp_path / (f"labels{form.ending}" if form.several else "labels")
    write_events(name, recordings, labels, dict.fromkeys(recordings, 2.0))
    manifest = tmp_path / "mine.jsonl"
    assert main(["data", "table", str(labels), "--audio", str(tmp_path / "audio"), "--out", str(manifest)]) == 0
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    found = {line["id"]: sorted((e["onset"], e["offset"], e["label"]) for e in line["events"]) for line in lines}
    assert found == {"a": [(0.5, 1.5, 'a "dog"'), (1.25, 1.75, "cat")], "b": []}
    capsys.readouterr()
    asked = ["evaluate", str(labels), str(manifest), "--match", "basename", "--resamples", "0", "--json"]
    assert main(asked) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["event_based"]["micro"]["f1"] == 1.0 and report["files"]["unanswered"] == 0
