"""Event files: every format gives the same events, and what cannot be read is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timepro.data.event_files import read_durations, read_event_file
from timepro.data.event_parts import FileEvents
from timepro.events import Event

DOG, CAT = Event(0.5, 1.2, "Dog"), Event(2.0, 3.0, "Cat")
EXPECTED = {"a.wav": FileEvents([DOG, CAT]), "b.wav": FileEvents()}


def rows(separator: str, end: str = "\n") -> str:
    lines = [["filename", "onset", "offset", "event_label"], ["a.wav", "0.5", "1.2", "Dog"], ["b.wav", "", "", ""]]
    return "".join(separator.join(line) + end for line in [*lines, ["a.wav", "2", "3.0", "Cat"]])


def event(e: Event, label: str = "event_label", **more: object) -> dict[str, object]:
    return {"onset": e.onset, "offset": e.offset, label: e.label, **more}


def jsonl(*items: object) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


WHOLE = [{"filename": "a.wav", "events": [event(DOG), event(CAT)]}, {"filename": "b.wav", "events": []}]
SINGLE = [
    event(DOG, filename="a.wav"),
    {"filename": "b.wav", "onset": None, "offset": None, "event_label": None},
    event(CAT, "label", id="a.wav"),
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.tsv", rows("\t")),
        ("x.TSV", "\n" + rows("\t", "\r\n")),
        ("x.csv", "\ufeff" + rows(",")),
        ("x.csv", rows(";")),
        ("x.csv", ',event_label,onset,offset,filename\n0,"Dog",0.5,1.2,a.wav\n1,,,,b.wav\n\n2,Cat,2.0,3.0,a.wav'),
        ("x.json", json.dumps(WHOLE, indent=1)),
        ("x.json", "\ufeff" + json.dumps(SINGLE)),
        ("x.jsonl", jsonl(*WHOLE)),
        ("x.jsonl", jsonl(*SINGLE).replace("\n", "\r\n\r\n")),
    ],
)
def test_every_format_gives_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_event_file(path, "reference") == read_event_file(path, "predictions") == EXPECTED


def test_a_separator_inside_a_quoted_label(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('filename,onset,offset,event_label\na.wav,0,1,"bark, ""loud"""\n')
    assert read_event_file(path, "predictions")["a.wav"].events == [Event(0, 1, 'bark, "loud"')]


def test_duplicates_are_kept_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("filename\tonset\toffset\tevent_label\n" + "a\t2\t3\tx\na\t0\t1\tx\n" * 2)
    assert [e.onset for e in read_event_file(path, "predictions")["a"].events] == [2, 0, 2, 0]


def test_a_manifest_line_is_a_reference(tmp_path: Path) -> None:
    line = {"id": "a", "audio": "a.flac", "duration": 4.0, "queries": []}
    line["events"] = [event(DOG, "label", annotated_onset=0.7, annotated_offset=1.4, caption="a dog")]
    path = tmp_path / "x.jsonl"
    path.write_text(jsonl(line))
    assert read_event_file(path, "reference") == {"a": FileEvents([DOG], 4.0)}


def test_a_runs_answers_serve_as_either_side(tmp_path: Path) -> None:
    line = {"id": "a", "audio": "a.flac", "duration": 4.0, "reference": [event(DOG, "label")], "answer": "hm"}
    path = tmp_path / "x.jsonl"
    path.write_text(jsonl(line | {"events": [], "ok": False, "repairs": ["no readable event"]}))
    assert read_event_file(path, "predictions") == {"a": FileEvents([], 4.0, ok=False)}
    assert read_event_file(path, "reference") == {"a": FileEvents([DOG], 4.0)}


def test_samples_are_lists_of_events(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(jsonl({"filename": "a", "events": [], "samples": [[event(DOG)], []]}))
    assert read_event_file(path, "predictions")["a"].samples == [[DOG], []]


HEADER = "filename\tonset\toffset\tevent_label\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.tsv", HEADER + "a\t1.0\tx\tDog\n", [":2: column 'offset': 'x' is not a number", "write it as 1.25"]),
        ("x.tsv", HEADER + "a\t1,0\t2\tDog\n", [":2: column 'onset': '1,0' is not a number"]),
        ("x.tsv", HEADER + "\na\t2.0\t1.0\tDog\n", [":3: column 'offset': onset 2.0 s is not before offset 1.0 s"]),
        ("x.tsv", HEADER + "a\t1.0\t1.0\tDog\n", [":2:", "not before"]),
        ("x.tsv", HEADER + "a\t-1\t1.0\tDog\n", [":2: column 'onset': '-1' is not a time"]),
        ("x.tsv", HEADER + "a\tnan\t1.0\tDog\n", [":2: column 'onset' is 'nan', which stands for no value; fill it"]),
        ("x.tsv", HEADER + "a\t1\tinf\tDog\n", [":2: column 'offset': 'inf' is not a time"]),
        ("x.tsv", HEADER + "a\t1.0\t\tDog\n", [":2: column 'offset' is empty; fill it, or empty all three"]),
        ("x.tsv", HEADER + "a\t1.0\t2\t \n", [":2: column 'event_label' is empty"]),
        ("x.tsv", HEADER + "\t1.0\t2.0\tDog\n", [":2: 'filename' is ''"]),
        ("x.tsv", HEADER + "a\t1.0\t2.0\tbig\tdog\n", [":2: 5 fields, but the header names 4", "tab into"]),
        ("x.tsv", HEADER + 'a\t1.0\t2.0\t"big\tdog"\n', [":2: column 'event_label': 'big\\tdog' holds a tab"]),
        ("x.tsv", HEADER + 'a\t1.0\t2.0\t"Dog\nb\t1\t2\tCat\n', [":2: a field begins with a quote and does not end"]),
        ("x.csv", "filename,onset,offset,label\n", [":1: the header 'filename,onset,offset,label'", "'event_label'"]),
        ("x.csv", "filename,onset,onset,offset,event_label\n", [":1: column 'onset' stands twice"]),
        ("x.tsv", "", [":1: the header '' has no column 'filename'"]),
        ("x.tsv", HEADER + "a\t1\t2\t\udcff\n", [":2: not UTF-8 text", "save it as UTF-8"]),
        ("x.jsonl", '{"filename": "a"', [":1: not valid JSON"]),
        ("x.jsonl", "[" * 100_000, [":1: not valid JSON"]),
        ("x.jsonl", "[1]\n", [":1: expected an object, got list"]),
        ("x.jsonl", jsonl({"events": []}), [":1: 'filename' is None"]),
        ("x.jsonl", jsonl({"filename": "a"}), [":1: no key 'events' and no key 'onset'"]),
        ("x.jsonl", jsonl(WHOLE[0], WHOLE[0]), [":2: key 'filename': 'a.wav' was there already"]),
        ("x.jsonl", jsonl(SINGLE[0], WHOLE[0]), [":2: key 'filename': 'a.wav' was there already"]),
        ("x.jsonl", jsonl({"filename": "a", "events": {}}), [":1: key 'events': expected a list, got dict"]),
        ("x.jsonl", jsonl({"filename": "a", "events": [3]}), [":1: key 'events[0]': expected an object"]),
        ("x.jsonl", jsonl({"filename": "a", "events": [event(DOG, onset="0")]}), ["key 'events[0].onset': expected"]),
        (
            "x.jsonl",
            jsonl({"filename": "a", "events": [event(DOG, offset=0.1)]}),
            ["key 'events[0].offset': onset 0.5"],
        ),
        ("x.jsonl", jsonl({"filename": "a", "events": [event(DOG, onset=float("nan"))]}), ["nan is not a time"]),
        ("x.jsonl", jsonl({"filename": "a", "events": [event(DOG, offset=10**400)]}), ["is not a number of seconds"]),
        ("x.jsonl", jsonl({"filename": "a", "events": [{"onset": 0, "offset": 1}]}), ["key 'events[0].event_label'"]),
        ("x.jsonl", jsonl({"filename": "a", "events": [], "samples": [[1]]}), ["key 'samples[0][0]': expected an obj"]),
        ("x.jsonl", jsonl({"filename": "a", "events": [], "ok": "no"}), [":1: key 'ok': expected true or false"]),
        ("x.jsonl", jsonl({"filename": "a", "events": [], "duration": 0}), [":1: key 'duration': a file of 0 s"]),
        ("x.json", json.dumps({"a": []}), ["expected a list of objects, got dict", "[...]"]),
        ("x.json", json.dumps([*WHOLE, 4]), [": item 2: expected an object, got int"]),
        ("x.md", "", ["unknown ending '.md'", ".jsonl"]),
        ("x.tsv", HEADER + "a\t1_0\t20\tDog\n", [":2: column 'onset': '1_0' is not a number"]),
        ("x.csv", "file,start,end,label\n", ["no column 'filename'", "is it --columns 'filename=file,onset=start,off"]),
    ],
)
def test_bad_input_names_file_line_and_column(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError) as caught:
        read_event_file(path, "reference")
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.tsv: no such file"):
        read_event_file(tmp_path / "gone.tsv", "reference")
    with pytest.raises(ValueError, match="no label files in it"):
        read_event_file(tmp_path, "reference")


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timepro.data.table.MAX_LINE", 1000)
    path = tmp_path / "x.tsv"
    path.write_text(HEADER + "a" * 2000)
    with pytest.raises(ValueError, match=":2: the line is longer than"):
        read_event_file(path, "reference")


def test_durations(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("filename\tduration\na\t10.0\nb\t2\na\t10\n")
    assert read_durations(path) == {"a": 10.0, "b": 2.0}
    for line, words in (("a\t9", "'a' has 10.0 s further up"), ("c\t0", "0 s holds nothing"), ("c\tx", "not a number")):
        path.write_text(f"filename\tduration\na\t10.0\n{line}\n")
        with pytest.raises(ValueError, match=words) as caught:
            read_durations(path)
        assert f"{path}:3: column 'duration'" in str(caught.value)
