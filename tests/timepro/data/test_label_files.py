"""Label files as people and programs write them: what is read, what is listed, and what stays an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timepro.data.event_files import ReadOptions, read_event_file
from timepro.data.event_parts import FileEvents
from timepro.data.repairs import Repairs
from timepro.data.table import columns_named
from timepro.data.tracks import program_of, recording_of
from timepro.events import Event

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases"
HEADER = "filename\tonset\toffset\tevent_label\n"
DOG = Event(0.5, 1.5, "Dog")


def read(path: Path, role: str = "reference", **options) -> tuple[dict[str, FileEvents], list[str]]:
    repairs = Repairs()
    found = read_event_file(path, role, repairs, ReadOptions(**options))
    return found, [line.replace(str(path), path.name) for line in repairs.lines()]


def case(*parts: str) -> Path:
    path = CASES.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the cases are not beside the repository ({path})")
    return path


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("rows", "listed"),
    [
        ("b.wav\t\t\t\n", []),
        ("b.wav\n", ["1 row with the file's name alone: a file without events (x.tsv:3)"]),
        ("b.wav\t\t\n", ["1 row with the file's name alone: a file without events (x.tsv:3)"]),
        ("b.wav\tnan\tnan\tnan\n", ["1 row with 'nan' or the like for onset, offset and label: a file without events"]),
        ("b.wav\tNaN\t\tNA\nb.wav\t<NA>\tNone\tnull\n", ["2 rows with 'nan' or the like for onset"]),
    ],
)
def test_what_other_tools_take_as_no_events_is_a_file_without_events(
    tmp_path: Path, rows: str, listed: list[str]
) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(HEADER + "a.wav\t0.5\t1.5\tDog\n" + rows)
    for role in ("reference", "predictions"):
        found, repaired = read(path, role)
        assert found == {"a.wav": FileEvents([DOG]), "b.wav": FileEvents()}
        assert len(repaired) == len(listed) and all(a.startswith(b) for a, b in zip(repaired, listed, strict=True))


def test_what_pandas_reads_as_an_empty_row_is_one(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    words = ["", "#N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
    path = tmp_path / "x.tsv"
    path.write_text(HEADER + "".join(f"{i}.wav\t{word}\t{word}\t{word}\n" for i, word in enumerate(words)))
    assert pandas.read_csv(path, sep="\t")[["onset", "offset", "event_label"]].isna().all(axis=None)
    assert read(path)[0] == {f"{i}.wav": FileEvents() for i in range(len(words))}


def test_nan_in_json_is_no_event_either(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    empty = {"filename": "b.wav", "onset": float("nan"), "offset": float("nan"), "event_label": float("nan")}
    path.write_text(json.dumps(empty) + "\n" + json.dumps(empty | dict.fromkeys(("onset", "offset", "event_label"))))
    found, repaired = read(path)
    assert found == {"b.wav": FileEvents()} and len(repaired) == 1


@pytest.mark.parametrize(
    "header",
    [
        '"filename"\t"onset"\t"offset"\t"event_label"',
        " filename \t onset\toffset \tevent_label ",
        'event_label, "filename" ,onset,"offset"',
        "filename;onset;offset;event_label;remark",
        '\ufeff"filename","onset","offset","event_label"',
    ],
)
def test_headers_may_be_quoted_and_padded(tmp_path: Path, header: str) -> None:
    mark = next(mark for mark in "\t;," if mark in header)
    names = [name.strip(' "\ufeff') for name in header.split(mark)]
    cells = {"filename": "a.wav", "onset": " 0.5", "offset": '"1.5"', "event_label": '"Dog"', "remark": 'a "b"'}
    path = tmp_path / "x.csv"
    path.write_bytes(f"{header}\r\n{mark.join(cells[name] for name in names)}\r\n".encode())
    assert read(path) == ({"a.wav": FileEvents([DOG])}, [])


def test_a_long_quote_left_open_is_found_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("filename,onset,offset,event_label\na.wav,0,1," + '"' + '""' * 32_000 + "\n")
    with pytest.raises(ValueError, match=r"x\.csv:2: a field begins with a quote"):
        read(path)


def test_columns_of_other_names_are_read_where_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("file,start,end,class\na.wav,0.5,1.5,Dog\n")
    with pytest.raises(ValueError, match="--columns 'filename=file,onset=start,offset=end,event_label=class'"):
        read(path)
    columns = columns_named("filename=file,onset=start,offset=end,event_label=class")
    assert read(path, columns=columns)[0] == {"a.wav": FileEvents([DOG])}
    for wrong in ("begin=start", "onset", "onset="):
        with pytest.raises(ValueError, match="is not OURS=YOURS"):
            columns_named(wrong)


# ---------------------------------------------------------------- predictions


def test_predictions_are_scored_as_they_are_and_references_must_be_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(HEADER + "a\t5\t5\tDog\na\t-0.01\t1\tDog\na\t-3\t-2\tCat\n")
    found, repaired = read(path, "predictions")
    assert found["a"].events == [Event(5, 5, "Dog"), Event(0, 1, "Dog"), Event(0, 0, "Cat")]
    assert repaired == [
        "2 events predicted without length: scored as a false positive (x.tsv:2, x.tsv:4)",
        "2 events predicted to begin before 0 s: cut to begin at 0 (x.tsv:3, x.tsv:4)",
    ]
    with pytest.raises(ValueError, match=r"x\.tsv:2: column 'offset': onset 5.0 s is not before offset 5.0 s"):
        read(path)
    path.write_text(HEADER + "a\t2\t1\tDog\n")
    with pytest.raises(ValueError, match=r"x\.tsv:2: .*not before"):
        read(path, "predictions")


# ---------------------------------------------------------------- programs


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
JAMS = {"annotations": [{"namespace": "segment_open", "data": [{"time": 0.5, "duration": 1.0, "value": "Dog"}]}]}
TRACKS = {
    "Audacity": ("take.txt", "0.500000\t1.500000\tDog\n\\\t200.0\t4000.0\n"),
    "Audacity with blanks": ("take.txt", "  0.5 1.5  Dog\n\n"),
    "Sonic Visualiser": ("take.csv", "0.500000000,0,1.000000000,Dog\n"),
    "Sonic Visualiser, notes": ("take.csv", '0.500000000,440,1.000000000,0.8,"Dog"\n'),
    "Sonic Visualiser with a header": ("take.csv", "TIME,VALUE,DURATION,LABEL\n0.5,0,1,Dog\n"),
    "Raven": (
        "take.Table.1.selections.txt",
        f"{RAVEN}\tAnnotation\n1\tWaveform 1\t1\t0.5\t1.5\t0\t9000\tDog\n1\tSpectrogram 1\t1\t0.5\t1.5\t0\t9000\tDog\n",
    ),
    "JAMS": ("take.jams", json.dumps(JAMS)),
}


@pytest.mark.parametrize("program", TRACKS)
def test_label_files_of_programs_are_about_the_recording_of_their_name(tmp_path: Path, program: str) -> None:
    path = write(tmp_path, *TRACKS[program])
    assert program.startswith(program_of(path)) and program_of(path)
    assert read(path)[0] == {"take": FileEvents([DOG])}


def test_a_folder_of_label_files_is_a_file_of_events(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "0.5\t1.5\tDog\n")
    write(tmp_path, "b.txt", "")  # Audacity's export of a track without labels
    write(tmp_path, "deeper/c.wav.csv", "0.5,0,1,Dog\n")
    write(tmp_path, "notes.md", "to do")
    silent, dog = FileEvents(), FileEvents([DOG])
    assert read(tmp_path)[0] == {"a": dog, "b": silent, "deeper/c": dog}
    write(tmp_path, "a.csv", "0.5,0,1,Dog\n")
    with pytest.raises(ValueError, match=r"'a' has labels in another file"):
        read(tmp_path)
    (tmp_path / "a.csv").write_text(HEADER.replace("\t", ","))
    with pytest.raises(ValueError, match=r"a\.csv: this is not a label file of one recording"):
        read(tmp_path)


def test_a_raven_table_of_several_recordings_counts_each_from_its_beginning(tmp_path: Path) -> None:
    header = f"{RAVEN}\tBegin File\tFile Offset (s)\tSpecies\n"
    rows = "1\tS\t1\t60.5\t61.5\t0\t1\ta.wav\t0.5\tDog\n2\tS\t1\t121\t122\t0\t1\tb.wav\t1\tCat\n"
    path = write(tmp_path, "all.selections.txt", header + rows)
    assert read(path)[0] == {"a.wav": FileEvents([DOG]), "b.wav": FileEvents([Event(1, 2, "Cat")])}
    write(tmp_path, "all.selections.txt", (header + rows).replace("File Offset (s)", "Delta Time (s)"))
    with pytest.raises(ValueError, match="times count through 2 recordings; export the table with"):
        read(path)


def test_raven_tables_put_together_keep_every_recording_and_every_event(tmp_path: Path) -> None:
    header = f"{RAVEN}\tBegin File\tFile Offset (s)\tSpecies\n"
    rows = (
        "1\tS\t1\t0.5\t1.5\t0\t1\ta.wav\t0.5\tDog\n"
        "1\tW\t1\t0.5\t1.5\t0\t1\ta.wav\t0.5\tDog\n"  # the same selection's other view
        "1\tS\t1\t0.5\t1.5\t0\t1\tb.wav\t0.5\tDog\n"
        "1\tS\t1\t\t\t\t\tsilent.wav\t\t\n"
    )
    path = write(tmp_path, "all.selections.txt", "\n" + header + rows)  # a blank line first, too
    found, repaired = read(path)
    assert found == {"a.wav": FileEvents([DOG]), "b.wav": FileEvents([DOG]), "silent.wav": FileEvents()}
    assert [line.split(" ")[0:2] for line in repaired] == [["1", "row"], ["1", "row"]]
    assert "further view" in repaired[0] and "all.selections.txt:4" in repaired[0]
    assert repaired[1].endswith("a file without events (all.selections.txt:6)")


def test_ravens_label_column_is_asked_for_where_there_is_a_choice(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", f"{RAVEN}\tSpecies\tCall\n1\tS\t1\t0.5\t1.5\t0\t1\tWolf\tDog\n")
    with pytest.raises(ValueError, match="--columns event_label=NAME, one of Species, Call"):
        read(path)
    assert read(path, columns=columns_named("event_label=Call"))[0] == {"a": FileEvents([DOG])}


TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"sounds"
0
2.5
3
0
0.5
""
0.5
1.5
"Dog"
1.5
2.5
""
"TextTier"
"bells"
0
2.5
1
2.0
"ding"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_textgrids_tier_of_intervals_is_read(tmp_path: Path, encoding: str) -> None:
    pytest.importorskip("praatio")
    path = tmp_path / "take.TextGrid"
    path.write_bytes(TEXTGRID.encode(encoding))
    assert read(path)[0] == {"take": FileEvents([DOG], 2.5)}
    with pytest.raises(ValueError, match="no tier 'dogs' --tier NAME, of intervals: 'sounds'"):
        read(path, tier="dogs")
    path.write_text("File type")
    with pytest.raises(ValueError, match=r"take\.TextGrid: this is not a TextGrid that can be read"):
        read(path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.txt", "0.5\t1.5\tDog\nhello\n", r"x\.txt:2: 'hello' is not a line of a label track"),
        ("x.txt", "5.0\t5.0\tpoint\n", r"x\.txt:1: .*not before"),
        ("x.txt", "0.5\t1.5\n", r"x\.txt:1: column 'event_label'"),
        ("x.txt", "hello\n", r"x\.txt:1: the header 'hello' has no column 'filename'"),
        ("x.csv", "0.5,Dog\n", r"x\.csv:1: the header"),
        ("x.csv", "0.5,1,Dog\n", r"x\.csv:1: 3 fields without a header are points in time"),
        ("x.csv", "0.5,0,1,Dog\n0.5,0\n", r"x\.csv:2: 2 fields, fewer than the lines above"),
        ("x.csv", "0.5,0,one,Dog\n", r"x\.csv:1: 'one' is not a number"),
        ("x.jams", "{}", r"x\.jams: no list 'annotations'"),
    ],
)
def test_what_is_wrong_in_them_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(ValueError, match=words):
        read(path)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.txt", "a"), ("a.wav.txt", "a"), ("a.FLAC.csv", "a"), ("Y1_30.000_40.000.txt", "Y1_30.000_40.000"),
        ("a.au.txt", "a"), ("a.W64.txt", "a"), ("a.m4a.txt", "a"), ("b.caf.d.txt", "b.caf.d"),
        ("a.Table.12.selections.txt", "a"), ("a.wav.TextGrid", "a"),
    ],
)  # fmt: skip
def test_the_recordings_name_is_the_files(file: str, name: str) -> None:
    assert recording_of(Path(file)) == name


def test_the_cases_files_are_read() -> None:
    assert read(case("label_files", "sv.csv"))[0] == {"sv": FileEvents([Event(1.0, 2.0, "Dog")])}
    with pytest.raises(ValueError, match=r"aud\.txt:3: .*onset 5.0 s is not before offset 5.0 s"):
        read(case("label_files", "aud.txt"))
    found, repaired = read(case("label_files", "aud.txt"), "predictions")
    assert found == {"aud": FileEvents([Event(1, 2, "Dog"), Event(5, 5, "point")])}
    assert len(repaired) == 2  # the line of frequencies, and the point


def test_all_problems_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    rows = "a\t1\t2\tDog\n" + "".join(f"a\t{i}\t0.5\tDog\n" for i in range(1, 31)) + "a\t1\n"
    with pytest.raises(ValueError) as caught:
        read(write(tmp_path, "x.tsv", HEADER + rows))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("x.tsv has 31 problems:") and lines[-1] == "  and 11 more" and len(lines) == 22
    assert "x.tsv:3: column 'offset'" in lines[1] and "x.tsv:22: " in lines[20]
    two = [{"filename": "a", "events": [{"onset": 2, "offset": 1, "label": "x"}]}, {"filename": ""}]
    with pytest.raises(ValueError, match=r"has 2 problems:\n.*x\.jsonl:1: .*\n.*x\.jsonl:2: 'filename' is ''"):
        read(write(tmp_path, "x.jsonl", "".join(json.dumps(item) + "\n" for item in two)))
    with pytest.raises(ValueError, match=r"has 2 problems:\n.*x\.txt:1: .*\n.*x\.txt:2: "):
        read(write(tmp_path, "x.txt", "2\t1\tDog\n3\t3\tDog\n"))
