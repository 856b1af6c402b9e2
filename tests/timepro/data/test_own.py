"""Labels and audio of one's own: from a table or label files and a folder to a manifest, and shared out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timepro.cli import main
from timepro.data.check import id_of
from timepro.data.manifest import read_manifest
from timepro.data.split import split


def data(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


@pytest.fixture
def audio(tmp_path: Path, trees) -> Path:
    """Four recordings of 4 s, two of them in folders."""
    for name in ("a.wav", "b.flac", "x/c.wav", "y/d.wav"):
        trees.audio(tmp_path / "audio" / name)
    return tmp_path / "audio"


def found(manifest: Path) -> dict[str, list[tuple]]:
    return {clip.id: [(e.onset, e.offset, e.label) for e in clip.events] for clip in read_manifest(manifest)}


def write(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows))
    return path


def test_a_table_and_a_folder_become_a_manifest(tmp_path: Path, audio: Path, capsys) -> None:
    table = write(
        tmp_path / "labels.csv",
        "event_label,filename,onset,offset,caption",
        "dog,a.wav,0.5,1.25,a dog barks",
        ",b,nan,nan,",
        "cat,/home/somebody/c.wav,2,3,",
    )
    out = tmp_path / "new" / "m.jsonl"
    assert data("table", table, "--audio", audio, "--out", out, "--split", "train") == 0
    assert found(out) == {"a": [(0.5, 1.25, "dog")], "b": [], "x/c": [(2.0, 3.0, "cat")]}
    clips = {clip.id: clip for clip in read_manifest(out)}
    assert clips["a"].events[0].caption == "a dog barks" and clips["x/c"].events[0].caption is None
    assert clips["b"].audio == audio / "b.flac" and clips["a"].split == "train"
    printed = capsys.readouterr().out
    assert f"1 file of {audio}, the first y/d.wav (not named in {table}: left out; --unlisted empty" in printed
    assert "1 row with 'nan' or the like for onset, offset and label: a file without events (labels.csv:3)" in printed


@pytest.mark.parametrize("ending", [".au", ".w64", ".caf"])
def test_audio_of_every_format_that_is_read_is_found_without_its_ending(tmp_path: Path, trees, ending: str) -> None:
    trees.audio(tmp_path / "audio" / f"a{ending}")
    labels = write(tmp_path / "labels" / f"a{ending}.txt", "0.5\t1.25\tdog").parent
    assert data("table", labels, "--audio", tmp_path / "audio", "--out", tmp_path / "m.jsonl") == 0
    assert found(tmp_path / "m.jsonl") == {"a": [(0.5, 1.25, "dog")]}


def test_audio_without_labels_is_silent_only_where_that_is_asked_for(tmp_path: Path, audio: Path, capsys) -> None:
    table = write(tmp_path / "t.tsv", "filename\tonset\toffset\tevent_label", "a\t0\t1\tdog")
    assert data("table", table, "--audio", audio, "--out", tmp_path / "m.jsonl", "--unlisted", "empty") == 0
    assert found(tmp_path / "m.jsonl") == {"a": [(0.0, 1.0, "dog")], "b": [], "x/c": [], "y/d": []}
    assert "3 files without labels: a clip without events" in capsys.readouterr().out


def test_label_files_of_programs_become_a_manifest(tmp_path: Path, audio: Path, capsys) -> None:
    labels = tmp_path / "labels"
    write(labels / "a.txt", "0.5\t1.25\tdog", "\\\t100\t200")
    write(labels / "b.flac.csv", "0.5,0,0.75,dog")
    write(labels / "x" / "c.txt")
    (labels / "x" / "c.txt").write_text("")
    one = {"namespace": "tag_open", "data": [{"time": 1.0, "duration": 2.0, "value": "cat"}]}
    write(labels / "d.jams", json.dumps({"annotations": [one], "file_metadata": {"duration": 4.0}}))
    assert data("table", labels, "--audio", audio, "--out", tmp_path / "m.jsonl") == 0
    dog = [(0.5, 1.25, "dog")]
    assert found(tmp_path / "m.jsonl") == {"a": dog, "b": dog, "x/c": [], "y/d": [(1.0, 3.0, "cat")]}
    assert "1 frequency range of a label: not an event (a.txt:2)" in capsys.readouterr().out
    assert data("table", labels / "a.txt", "--audio", audio, "--out", tmp_path / "one.jsonl") == 0
    assert found(tmp_path / "one.jsonl") == {"a": dog}


def test_every_problem_is_named_by_file_and_line(tmp_path: Path, audio: Path, trees, capsys) -> None:
    trees.audio(audio / "y" / "a.wav")
    table = write(
        tmp_path / "t.tsv",
        "filename\tonset\toffset\tevent_label",
        "gone.wav\t0\t1\tdog",
        "c\t1\t1\tdog",
        "b\t1_0\t2\tdog",
        "b.wav\t0\t1\tdog",  # b again, under an ending that its audio does not have
        "d\t3\t9\tdog",
        "z/a.wav\t0\t1\tdog",
    )
    assert data("table", table, "--audio", audio, "--out", tmp_path / "m.jsonl") == 2
    listed = (tmp_path / "m.jsonl.problems.tsv").read_text().splitlines()[1:]
    lines = {int(line.split("\t")[1]): line.split("\t")[-1] for line in listed}
    assert not (tmp_path / "m.jsonl").exists()
    assert "no audio gone.wav" in lines[2] and "not before" in lines[3] and "'1_0' is not a number" in lines[4]
    assert "beyond the audio" in lines[6] and "'z/a.wav' can be a.wav or y/a.wav" in lines[7]


def test_one_recording_under_two_names_is_not_two_clips(tmp_path: Path, audio: Path) -> None:
    table = write(tmp_path / "t.tsv", "filename\tonset\toffset\tevent_label", "a\t0\t1\tdog", "a.wav\t1\t2\tdog")
    assert data("table", table, "--audio", audio, "--out", tmp_path / "m.jsonl") == 2
    assert "id 'a' is already that of t.tsv:2" in (tmp_path / "m.jsonl.problems.tsv").read_text()


def test_a_stated_duration_is_compared_with_the_audio(tmp_path: Path, audio: Path) -> None:
    one = {"namespace": "tag_open", "data": []}
    write(tmp_path / "labels" / "a.jams", json.dumps({"annotations": [one], "file_metadata": {"duration": 9.0}}))
    assert data("table", tmp_path / "labels", "--audio", audio, "--out", tmp_path / "m.jsonl") == 2
    assert "lasts 4 s, but 9 s are stated" in (tmp_path / "m.jsonl.problems.tsv").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.tsv", "--audio", "audio"), "gone.tsv: no such file or folder of labels"),
        (("t.csv", "--audio", "gone"), "gone: no such folder; --audio is the folder"),
        (("t.csv", "--audio", "labels"), "labels: no audio files in it"),
        (("t.csv", "--audio", "audio"), "is it --columns 'filename=file,onset=start,offset=end,event_label=class'?"),
        (("t.csv", "--audio", "audio", "--columns", "label=class"), "is not OURS=YOURS"),
        (("labels", "--audio", "audio"), "labels: no label files in it"),
        (("m.md", "--audio", "audio"), "'.md' is not the ending of a table"),
    ],
)
def test_wrong_use_is_named(tmp_path: Path, audio: Path, capsys, monkeypatch, arguments: tuple, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", "file,start,end,class", "a.wav,0,1,dog")
    write(tmp_path / "m.md", "{}")
    (tmp_path / "labels").mkdir()
    assert data("table", *arguments, "--out", "new.jsonl") == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("validation/validation/clip1.wav", "validation/clip1"),
        ("a/b/a.wav", "a/b/a"),
        ("x.wav", "x"),
        ("a/a.wav", "a/a"),
    ],
)
def test_a_folder_in_its_namesake_is_named_once(path: str, name: str) -> None:
    assert id_of(f"/data/audio/{path}", "/data/audio") == name


# ---------------------------------------------------------------- shares


def many(folder: Path, trees, recordings: int = 20) -> Path:
    """Three clips a recording."""
    trees.audio(folder / "audio" / "one.wav", 0.5)
    content = (folder / "audio" / "one.wav").read_bytes()
    lines = []
    for i in range(recordings):
        (folder / "audio" / f"{i}.wav").write_bytes(content)
        lines += [
            json.dumps({"id": f"{i}-{k}", "audio": f"audio/{i}.wav", "duration": 0.5, "events": []}) for k in range(3)
        ]
    return write(folder / "all.jsonl", *lines)


def test_recordings_are_shared_out_whole_and_alike_each_time(tmp_path: Path, trees) -> None:
    source = many(tmp_path, trees)
    parts = [
        (tmp_path / "new" / "train.jsonl", 0.8),
        (tmp_path / "validation.jsonl", 0.1),
        (tmp_path / "test.jsonl", 0.1),
    ]
    assert list(split(source, parts).values()) == [48, 6, 6]
    recordings = [{clip.audio for clip in read_manifest(path)} for path, _ in parts]  # which also finds the audio
    assert [len(part) for part in recordings] == [16, 2, 2] and len(set.union(*recordings)) == 20
    lines = source.read_text().splitlines()
    write(source, *reversed(lines))
    split(source, parts)
    assert [{clip.audio for clip in read_manifest(path)} for path, _ in parts] == recordings
    split(source, parts, seed=1)
    assert [{clip.audio for clip in read_manifest(path)} for path, _ in parts] != recordings


def test_shares_that_cannot_be_are_refused_and_nothing_is_written(tmp_path: Path, trees, capsys) -> None:
    source = many(tmp_path, trees, recordings=3)
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for arguments, words in (
        ((f"{a}=0",), "a share is a number above 0"),
        ((f"{a}=nan",), "a share is a number above 0"),
        ((f"{a}",), "expected PART=SHARE"),
        ((f"{a}=1", f"{a}=1"), "must be different files"),
        ((f"{source}=1",), "must be different files"),
        ((f"{a}=0.99", f"{b}=0.01"), "3 recordings are too few for these 2 shares"),
    ):
        assert data("split", source, *arguments) == 2
        assert words in capsys.readouterr().err
    assert not a.exists() and not b.exists()
