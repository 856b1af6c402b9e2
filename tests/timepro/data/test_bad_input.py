"""Bad input, line by line: what is wrong -> the error that names it, or the documented repair.

First when a data set becomes a manifest, then when a manifest and its audio are read for training.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.data.audio import check_audio, read_audio
from timepro.data.check import Rules
from timepro.data.convert import Report, convert
from timepro.data.labels import read_label_map
from timepro.data.manifest import read_manifest

GIGABYTE = 1 << 30
GOOD = "b.wav\t0.500\t1.250\tDog"


def convert_desed(root: Path, rules: Rules | None = None, skip_invalid: bool = False) -> Report:
    return convert("desed", root, root / "m.jsonl", rules or Rules(), (), skip_invalid, workers=1, visible=False)


# ---------------------------------------------------------------- audio files


def noise(path: Path, seconds: float = 1.0, rate: int = 16000, channels: int = 1, **style: str) -> np.ndarray:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), channels))
    soundfile.write(path, samples, rate, **style)
    return samples


def with_sample(path: Path, value: float) -> None:
    samples = np.zeros(300_000, np.float32)  # the last block of several
    samples[-1] = value
    soundfile.write(path, samples, 16000, subtype="FLOAT")


def cut(path: Path, keep: float, format: str) -> None:
    noise(path, format=format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def sparse(path: Path, start: bytes, size: int = GIGABYTE, end: bytes = b"") -> None:
    """A file of ``size`` bytes without a line break between its start and its end, that takes no room."""
    with open(path, "wb") as file:
        file.write(start)
        file.seek(size - len(end))
        file.write(end)
        file.truncate(size)


BAD_AUDIO = {  # what is at the audio's path -> words of the error
    "missing": (lambda path: None, "no "),
    "a folder": (lambda path: path.mkdir(), "is a folder, not a file"),
    "a pipe": (os.mkfifo, "is not a regular file"),
    "0 bytes": (lambda path: path.touch(), "is an empty file"),
    "a text file called wav": (lambda path: path.write_text("hello\n" * 99), "cannot be decoded as audio"),
    "FLAC cut in the middle": (lambda path: cut(path, 0.5, "FLAC"), "cannot be decoded as audio"),
    "FLAC without its last bytes": (lambda path: cut(path, 0.999, "FLAC"), "cannot be decoded as audio"),
    "WAV cut in the middle": (lambda path: cut(path, 0.5, "WAV"), "cut short"),
    "MP3 cut in the middle": (lambda path: cut(path, 0.5, "MP3"), "cut short"),
    "a header alone": (lambda path: noise(path, 0.0), "holds no samples"),
    "NaN": (lambda path: with_sample(path, np.nan), "NaN or infinite"),
    "infinity": (lambda path: with_sample(path, -np.inf), "NaN or infinite"),
}


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_audio_is_refused_when_a_data_set_is_read(tmp_path: Path, trees, case: str) -> None:
    make, words = BAD_AUDIO[case]
    trees.desed(tmp_path, GOOD, "bad.wav\t0.1\t0.4\tDog", "bad.wav\t0.6\t0.9\tDog", names=("b",))
    make(tmp_path / "audio" / "validation" / "bad.wav")
    report = convert_desed(tmp_path)
    assert not report.written and not (tmp_path / "m.jsonl").exists()
    assert [(p.file, p.line, p.clip) for p in report.first] == [("metadata/validation/validation.tsv", 3, "bad.wav")]
    assert words in report.first[0].message and "bad.wav" in report.first[0].message


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_audio_is_refused_when_it_is_read_for_training(tmp_path: Path, case: str) -> None:
    make, words = BAD_AUDIO[case]
    make(tmp_path / "bad.wav")
    for read in (read_audio, check_audio):
        with pytest.raises(FileNotFoundError if case == "missing" else ValueError, match=rf"bad\.wav.*{words}"):
            read(tmp_path / "bad.wav")


@pytest.mark.parametrize("case", ["missing", "a folder", "a pipe", "0 bytes"])
def test_a_manifest_refuses_audio_that_cannot_be_there(tmp_path: Path, case: str) -> None:
    BAD_AUDIO[case][0](tmp_path / "a.flac")
    words = "does not exist" if case == "missing" else BAD_AUDIO[case][1]
    with pytest.raises(ValueError, match=rf"m\.jsonl:1: key 'audio'.*{words}"):
        read_manifest(manifest(tmp_path, line()))


REPAIRED_AUDIO = {  # read as mono float32 at 16 kHz
    "8-bit": {"subtype": "PCM_U8"},
    "24-bit": {"subtype": "PCM_24"},
    "96 kHz": {"rate": 96000, "subtype": "PCM_16"},
    "8 kHz": {"rate": 8000, "subtype": "PCM_16"},
    "6 channels": {"channels": 6, "subtype": "PCM_16"},
    "96 kHz in 6 channels": {"rate": 96000, "channels": 6, "subtype": "PCM_16"},
    "FLAC called wav": {"format": "FLAC"},
}


@pytest.mark.parametrize("case", REPAIRED_AUDIO)
def test_other_audio_is_read_as_the_mean_of_its_channels_at_16_khz(tmp_path: Path, trees, case: str) -> None:
    style = REPAIRED_AUDIO[case]
    trees.desed(tmp_path, GOOD, names=())
    path = tmp_path / "audio" / "validation" / "b.wav"
    path.parent.mkdir(parents=True)
    rate, channels = style.get("rate", 16000), style.get("channels", 1)
    time = np.arange(2 * rate) / rate
    tones = np.stack([0.5 * np.sin(2 * np.pi * 440 * time) * (k + 1) / channels for k in range(channels)], axis=1)
    soundfile.write(path, tones, rate, **{key: value for key, value in style.items() if key in ("subtype", "format")})
    report = convert_desed(tmp_path)
    assert report.written and report.audio == {(rate, channels): 1}
    clip = read_manifest(tmp_path / "m.jsonl")[0]
    found = read_audio(clip.audio)
    assert clip.duration == 2.0 and found.dtype == np.float32 and found.shape == (32000,)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000) * (channels + 1) / 2 / channels
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=0.01)  # 8 bits resolve 0.004


def test_hours_are_measured_without_being_decoded_or_held(tmp_path: Path) -> None:
    rate = 16000
    with soundfile.SoundFile(tmp_path / "long.wav", "w", rate, 2, "FLOAT") as file:
        for _ in range(60):
            file.write(np.zeros((10 * rate, 2), np.float32))  # ten minutes, 77 MB
    tracemalloc.start()
    assert check_audio(tmp_path / "long.wav").duration == 600.0
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


# ---------------------------------------------------------------- annotations


BAD_LINES = {  # a line of a table -> kind of the problem, words of its message
    "onset after offset": ("a.wav\t2.0\t1.0\tDog", "time", "onset 2 s is not before offset 1 s"),
    "onset at offset": ("a.wav\t2.0\t2.0\tDog", "time", "is not before"),
    "negative": ("a.wav\t-0.5\t1.0\tDog", "time", "onset '-0.5' is not a time; times are finite and at least 0"),
    "beyond the end": ("a.wav\t2.0\t4.5\tDog", "time", "ends 0.5 s beyond the audio, which lasts 4 s; --trim 0.5"),
    "all beyond the end": ("a.wav\t4.05\t4.1\tDog", "time", "beyond the audio, which lasts 4 s"),
    "NaN": ("a.wav\tnan\t1.0\tDog", "line", "column 'onset' is 'nan', which stands for no value"),
    "infinite": ("a.wav\t0.5\tinf\tDog", "time", "offset 'inf' is not a time; times are finite"),
    "no number": ("a.wav\t0,5\t1.0\tDog", "time", "onset '0,5' is not a number of seconds"),
    "digits with underscores": ("a.wav\t0.5\t1_0\tDog", "time", "offset '1_0' is not a number of seconds"),
    "digits of another script": ("a.wav\t0.5\t\u0661\tDog", "time", "is not a number of seconds"),
    "no offset": ("a.wav\t0.5\t\tDog", "line", "column 'offset' is empty; fill it, or empty all three"),
    "no label": ("a.wav\t0.5\t1.0\t", "line", "column 'event_label' is empty"),
    "nan for a label": ("a.wav\t0.5\t1.0\tnan", "line", "column 'event_label' is 'nan', which stands for no value"),
    "a quote left open": ('a.wav\t0.5\t1.0\t"Dog', "line", "begins with a quote and does not end with one"),
    "tab in a label": ("a.wav\t0.5\t1.0\tDog\tbark", "line", "5 fields, but the header names 4"),
    "too few columns": ("a.wav\t0.5", "line", "column 'offset' is empty"),
    "very many columns": ("a.wav" + "\tx" * 20_000, "line", "20,001 fields, but the header names 4"),
    "a label that no answer can hold": ("a.wav\t0.5\t1.0\t3-2-1", "label", "the label '3-2-1' would not be read back"),
    "a very long line": ("a.wav\t0.5\t1.0\t" + "x" * 70_000, "line", "longer than 65,536 bytes"),
    "no file name": ("\t0.5\t1.0\tDog", "line", "'filename' is ''"),
    "line separator in a label": ("a.wav\t0.5\t1.0\tDog\u2028bark", "label", "holds a tab, a line break"),
    "line separator in a name": ("a\u2028.wav\t0.5\t1.0\tDog", "missing", "no audio a\u2028.wav"),
    "a path out of the folder": ("../../x.wav\t0.5\t1.0\tDog", "missing", "no audio ../../x.wav"),
    "an absolute path": ("/etc/x.wav\t0.5\t1.0\tDog", "missing", "no audio /etc/x.wav"),
    "a clip under two endings": ("b.flac\t0.5\t1.0\tDog", "duplicate", "id 'validation/b' is already that of"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_lines_are_refused_by_file_and_line(tmp_path: Path, trees, case: str) -> None:
    text, kind, words = BAD_LINES[case]
    trees.desed(tmp_path, GOOD, text)
    trees.audio(tmp_path / "x.wav")
    report = convert_desed(tmp_path)
    assert [(p.file, p.line, p.kind) for p in report.first] == [("metadata/validation/validation.tsv", 3, kind)]
    assert words in report.first[0].message and not report.written
    assert len(report.first[0].message) < 400
    report = convert_desed(tmp_path, skip_invalid=True)
    assert [clip.id for clip in read_manifest(tmp_path / "m.jsonl")] == ["validation/b"]
    left_out = (tmp_path / "m.jsonl.skipped.tsv").read_text().splitlines()
    clip = report.first[0].clip.replace("\u2028", "\ufffd")
    assert len(left_out) == 2 and left_out[1].count("\t") == 4 and f"\t3\t{clip}\t" in left_out[1]


COLUMNS = b"filename\tonset\toffset\tevent_label\n"
GOOD_LINES = {  # the bytes of a table -> the events of b.wav, and the repair that is reported
    "byte order mark": (b"\xef\xbb\xbf" + COLUMNS + b"b.wav\t0.5\t1.25\tDog\n", (0.5, 1.25), None),
    "CRLF": (b"filename\tonset\toffset\tevent_label\r\nb.wav\t0.5\t1.25\tDog\r\n", (0.5, 1.25), None),
    "no last line end": (COLUMNS + b"b.wav\t0.5\t1.25\tDog", (0.5, 1.25), None),
    "blank lines": (COLUMNS + b"\nb.wav\t0.5\t1.25\tDog\n\r\n", (0.5, 1.25), None),
    "commas": (COLUMNS.replace(b"\t", b",") + b"b.wav,0.5,1.25,Dog\n", (0.5, 1.25), None),
    "a quoted header": (b'"filename"\t"onset"\t"offset"\t"event_label"\nb.wav\t0.5\t1.25\tDog\n', (0.5, 1.25), None),
    "a padded and quoted header": (
        b'filename, "onset" , offset,"event_label" \n b.wav , 0.5,1.25, "Dog"\n', (0.5, 1.25), None,
    ),
    "a row with the name alone": (COLUMNS + b"b.wav\t0.5\t1.25\tDog\na.wav\n", (0.5, 1.25), "1 row with the file's"),
    "a row of nan": (COLUMNS + b"b.wav\t0.5\t1.25\tDog\na.wav\tnan\tNaN\tNA\n", (0.5, 1.25), "1 row with 'nan'"),
    "blanks behind a row's end": (COLUMNS + b"b.wav\t0.5\t1.25\tDog\t\t \n", (0.5, 1.25), None),
    "other order of columns": (b"event_label\tfilename\tonset\toffset\nDog\tb.wav\t0.5\t1.25\n", (0.5, 1.25), None),
    "a millisecond beyond the end": (
        COLUMNS + b"b.wav\t0.5\t4.001\tDog\n", (0.5, 4.001), None,
    ),
    "a little beyond the end": (
        COLUMNS + b"b.wav\t0.5\t4.115\tDog\n", (0.5, 4.0), "cut to the end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD_LINES)
def test_harmless_tables_are_read_and_repairs_reported(tmp_path: Path, trees, case: str) -> None:
    content, span, repair = GOOD_LINES[case]
    (trees.desed(tmp_path) / "metadata" / "validation" / "validation.tsv").write_bytes(content)
    report = convert_desed(tmp_path)
    event = read_manifest(tmp_path / "m.jsonl")[0].events[0]
    assert (event.onset, event.offset, event.label) == (*span, "Dog")
    assert [repair in words for words in report.repairs.lines()] == [True] * bool(repair)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("filename\tonset\toffset\tlabel", "no table with the columns .*validation.tsv"),
        ("x" * 70_000, "validation.tsv: has no header line"),
    ],
)
def test_a_table_with_another_header_is_named(tmp_path: Path, trees, header: str, words: str) -> None:
    trees.desed(tmp_path, GOOD, header=header)
    with pytest.raises(ValueError, match=words):
        convert_desed(tmp_path)


def test_unknown_classes_are_refused_with_near_names(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, GOOD, "a.wav\t0.5\t1.0\tSpech", "a.wav\t1.5\t2.0\tSpeech", "a.wav\t1.5\t2.0\tFrying")
    (tmp_path / "map.tsv").write_text("# ours\nDog\tdog_bark\nSpeech\nFrying\t-\n")
    rules = Rules(labels=read_label_map(tmp_path / "map.tsv"))
    report = convert_desed(tmp_path, rules)
    assert [(p.line, p.kind) for p in report.first] == [(3, "unknown label")]
    assert "did you mean 'Speech'" in report.first[0].message
    table = tmp_path / "metadata" / "validation" / "validation.tsv"
    table.write_text(table.read_text().replace("Spech", "Speech"))
    report = convert_desed(tmp_path, rules)
    events = {clip.id: [e.label for e in clip.events] for clip in read_manifest(tmp_path / "m.jsonl")}
    assert events == {"validation/b": ["dog_bark"], "validation/a": ["Speech", "Speech"]}
    assert report.repairs.lines() == ["1 event left out, as the label map says (metadata/validation/validation.tsv:5)"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Dog\tdog\tbark\n", r"map\.tsv:1: .*two with one tab"),
        (b"Dog\t\n", r"map\.tsv:1: "),
        (b"Dog\nDog\tx\n", r"map\.tsv:2: label 'Dog' stands here twice"),
        (b"Dog\n\xff\n", r"map\.tsv:2: not UTF-8"),
        (b"# nothing\n", "is empty"),
        (b"x" * 70_000, r"map\.tsv:1: the line is longer"),
    ],
)
def test_bad_label_maps_name_file_and_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "map.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_label_map(tmp_path / "map.tsv")


@pytest.mark.parametrize("label", ["Dog\tbark", "Dog\nbark", "Dog\x00", "\ud800", "", "  ", None, 3])
def test_labels_that_would_break_a_table_are_refused(tmp_path: Path, trees, label: object) -> None:
    trees.dump(tmp_path / "annotations" / "train" / "a.jams", trees.jams(("foreground", 1.0, 1.0, label)))
    trees.audio(tmp_path / "audio" / "train" / "a.wav")
    report = convert("urbansed", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    assert [(p.file, p.line, p.kind) for p in report.first] == [("annotations/train/a.jams", 1, "label")]
    assert (tmp_path / "m.jsonl.problems.tsv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("time", "length", "words"),
    [("1", 1.0, None), (None, 1.0, "onset None is not"), (1.0, None, "offset None is"), (True, 1.0, "onset True is"),
     (1.0, float("nan"), "offset nan is not a time"), (1.0, -0.5, "not before"), (10**400, 1.0, "onset 1000")],
)  # fmt: skip
def test_times_in_json_are_checked_too(tmp_path: Path, trees, time: object, length: object, words: str | None) -> None:
    trees.dump(tmp_path / "annotations" / "train" / "a.jams", trees.jams(("foreground", time, length, "siren")))
    trees.audio(tmp_path / "audio" / "train" / "a.wav")
    report = convert("urbansed", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    assert {p.kind for p in report.first} == {"time"}
    assert words is None or words in report.first[0].message


# ---------------------------------------------------------------- lines of a gigabyte


def flat(action: Callable[[], object], mebibytes: int) -> object:
    tracemalloc.start()
    try:
        result = action()
        assert tracemalloc.get_traced_memory()[1] < mebibytes << 20
        return result
    finally:
        tracemalloc.stop()


def test_a_table_with_a_line_of_a_gigabyte_is_never_held(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, GOOD)
    table = tmp_path / "metadata" / "validation" / "validation.tsv"
    sparse(table, table.read_bytes() + b"a.wav\t", end=b"\na.wav\t0.5\t1.0\tDog\n")
    report = flat(lambda: convert_desed(tmp_path, skip_invalid=True), 16)
    assert [(p.line, p.kind) for p in report.first] == [(3, "line")] and report.clips == 2


def test_json_of_a_gigabyte_is_never_held(tmp_path: Path, trees) -> None:
    (tmp_path / "annotations" / "train").mkdir(parents=True)
    trees.audio(tmp_path / "audio" / "train" / "a.wav")
    sparse(tmp_path / "annotations" / "train" / "a.jams", b'{"annotations": "')
    run = lambda: convert("urbansed", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)  # noqa: E731
    assert "1,073,741,824 bytes" in flat(run, 16).first[0].message
    sparse(tmp_path / "val.json", b'[{"audio_id": "')
    with pytest.raises(ValueError, match=r"val\.json:1: item 1 is broken or longer than 16,777,216 characters"):
        flat(lambda: convert("audiogrounding", tmp_path, tmp_path / "m.jsonl", Rules(), visible=False), 160)


def test_a_manifest_with_a_line_of_a_gigabyte_is_never_held(tmp_path: Path) -> None:
    path = manifest(tmp_path, line())
    sparse(path, path.read_bytes() + b'{"id": "')
    (tmp_path / "a.flac").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"m\.jsonl:2: the line is longer than 16,777,216 bytes"):
        flat(lambda: read_manifest(path), 64)


# ---------------------------------------------------------------- manifests


def line(**changes: object) -> dict:
    event = {"onset": 0.5, "offset": 1.25, "label": "siren"}
    return {"id": "a", "audio": "a.flac", "duration": 4.0, "events": [event]} | changes


def manifest(folder: Path, *items: object) -> Path:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


BAD_CLIPS = {  # changes of a good clip -> words of the error; `test_manifest.py` has those of keys and times
    "tab in a label": ({"events": [{"onset": 0, "offset": 1, "label": "a\tb"}]}, r"events\[0\]\.label': 'a\\tb' holds"),
    "newline in a label": ({"events": [{"onset": 0, "offset": 1, "label": "a\nb"}]}, "holds a tab, a line break"),
    "newline in a caption": (
        {"events": [{"onset": 0, "offset": 1, "label": "a", "caption": "a\nb"}]}, "caption': .*holds a tab",
    ),
    "newline in a query": ({"queries": [{"text": "a\rb", "intervals": []}]}, r"'queries\[0\]\.text': .*holds a tab"),
    "NUL in a path": ({"audio": "a\x00.flac"}, "'audio': .*holds a tab"),
    "half a character": ({"id": "\ud800"}, "'id': .*holds a tab"),
    "a long wrong value": ({"duration": "x" * 1_000_000}, "'duration': expected a number"),
    "a long wrong key": ({"d" * 1_000_000: 1}, "unknown key 'ddd"),
    "very many keys": ({f"key{i}": 1 for i in range(20_000)}, "unknown key 'key"),
    "a list that is none": ({"events": {str(i): i for i in range(20_000)}}, "'events': expected a list"),
    "an empty split": ({"split": ""}, "'split': expected text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CLIPS)
def test_bad_clips_are_refused_in_a_short_message(tmp_path: Path, case: str) -> None:
    changes, words = BAD_CLIPS[case]
    (tmp_path / "a.flac").write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"m\.jsonl:2: .*{words}") as caught:
        read_manifest(manifest(tmp_path, line(id="first"), line(**changes)))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_manifest_may_have_a_byte_order_mark_and_crlf(tmp_path: Path, mark: bytes, ends: bytes) -> None:
    (tmp_path / "a.flac").write_bytes(b"x")
    clips = [json.dumps(line(id=name, split="train")).encode() for name in "ab"]
    (tmp_path / "m.jsonl").write_bytes(mark + ends.join(clips) + ends)
    assert [(clip.id, clip.split) for clip in read_manifest(tmp_path / "m.jsonl")] == [("a", "train"), ("b", "train")]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe{\x00", "not UTF-8"), (b'{"id": "\xff"}', "not UTF-8"), (b"[" * 100_000, "not valid JSON")],
)
def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=rf"m\.jsonl:1: {words}"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is a folder, not a manifest"):
        read_manifest(tmp_path)
