"""Each reader turns a small folder of the published layout into the clips that it describes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timepro.data.check import Rules
from timepro.data.convert import Report, convert
from timepro.data.formats import FORMATS, layout_text
from timepro.data.formats.json_files import json_items
from timepro.data.manifest import read_manifest


def read(name: str, root: Path, *splits: str, **options) -> tuple[Report, dict]:
    out = root / "m.jsonl"
    report = convert(name, root, out, Rules(), splits, workers=1, visible=False, **options)
    assert report.written, report.first
    clips = {clip.id: clip for clip in read_manifest(out)}  # what is written can be read for training
    assert len(clips) == report.clips
    return report, clips


def spans(clip) -> list[tuple]:
    return [(e.onset, e.offset, e.label) for e in clip.events]


def test_every_format_describes_its_layout() -> None:
    for name in FORMATS:
        assert "ROOT/" in layout_text(name)


# ---------------------------------------------------------------- DESED


def test_desed_gathers_the_lines_of_a_clip_from_anywhere(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, "a.wav\t0.5\t1.25\tDog", "b.wav\t\t\t", "a.wav\t0.0\t4.0\tSpeech")
    _, clips = read("desed", tmp_path)
    assert spans(clips["validation/a"]) == [(0.5, 1.25, "Dog"), (0.0, 4.0, "Speech")]
    assert spans(clips["validation/b"]) == []
    assert clips["validation/a"].duration == 4.0 and clips["validation/a"].split == "validation"


def test_desed_finds_audio_where_the_baselines_keep_it(tmp_path: Path, trees) -> None:
    header = "filename\tonset\toffset\tevent_label\n"
    for place in ("train/audioset_strong", "train/synthetic21_train/soundscapes", "eval/public"):
        path = tmp_path / "metadata" / f"{place}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + "0.wav\t0\t1\tDog\n")
    kept = ("train/strong_label_real_16k", "train/synthetic21_train/soundscapes", "eval/public")
    for place in kept:
        trees.audio(tmp_path / "audio" / place / "0.wav")
    _, clips = read("desed", tmp_path)
    assert {(clip.id, clip.split) for clip in clips.values()} == {
        ("train/strong_label_real_16k/0", "train/audioset_strong"),
        ("train/synthetic21_train/soundscapes/0", "train/synthetic21_train/soundscapes"),
        ("eval/public/0", "eval/public"),
    }
    _, clips = read("desed", tmp_path, "train")
    assert len(clips) == 2


def test_desed_says_which_tables_it_does_not_read(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, "a.wav\t0.5\t1.25\tDog")
    metadata = tmp_path / "metadata"
    (metadata / "validation" / "test_dcase2018.tsv").write_bytes(
        (metadata / "validation" / "validation.tsv").read_bytes()
    )
    (metadata / "validation" / "weak.tsv").write_text("filename\tevent_labels\na.wav\tDog\n")
    report, clips = read("desed", tmp_path)
    assert list(clips) == ["validation/a"]
    assert {file for file, _ in report.ignored} == {"metadata/validation/weak.tsv", "validation/test_dcase2018"}
    _, clips = read("desed", tmp_path, "validation/test_dcase2018")
    assert clips["validation/a"].split == "validation/test_dcase2018"


def test_desed_compares_stated_durations_with_the_audio(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, "a.wav\t0.5\t1.25\tDog", "b.wav\t0.5\t1.25\tDog")
    table = tmp_path / "metadata" / "validation" / "validation_durations.tsv"
    table.write_text("filename\tduration\na.wav\t4.1\nb.wav\t10.0\n")
    report = convert("desed", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    assert [(p.clip, p.kind) for p in report.first] == [("b.wav", "length")]
    assert "lasts 4 s, but 10 s are stated" in report.first[0].message


def test_desed_names_the_folder_that_was_meant(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path / "dcase" / "dataset", "a.wav\t0.5\t1.25\tDog")
    with pytest.raises(ValueError, match="did you mean .*dcase/dataset"):
        read("desed", tmp_path)


def test_published_desed_labels_are_read_whole(tmp_path: Path, trees) -> None:
    """Against a count of the published table by other means; the audio stands in with the published durations."""
    data = Path(__file__).resolve().parents[4] / "shared" / "data" / "desed_baseline"
    if not (data / "validation.tsv").is_file():
        pytest.skip("the published DESED tables are not beside the repository (../shared/data/desed_baseline)")
    rows = [line.split("\t") for line in (data / "validation.tsv").read_text().splitlines()[1:]]
    wanted = sorted({row[0] for row in rows})[:150]
    durations = dict(line.split("\t") for line in (data / "validation_durations.tsv").read_text().splitlines()[1:])
    trees.desed(tmp_path, *("\t".join(row) for row in rows if row[0] in wanted), names=())
    for name in wanted:
        trees.audio(tmp_path / "audio" / "validation" / name, float(durations[name]), rate=2000)
    _, clips = read("desed", tmp_path)
    assert len(clips) == 150
    assert sum(len(clip.events) for clip in clips.values()) == sum(row[0] in wanted and row[1] != "" for row in rows)


# ---------------------------------------------------------------- URBAN-SED


def test_urbansed_takes_foreground_events_at_their_own_times(tmp_path: Path, trees) -> None:
    scene = trees.jams(
        ("background", 0.0, 4.0, "noise"), ("foreground", 1.265813, 0.41016800000000003, "gun_shot"),
        ("foreground", 3.164048, 0.835952, "dog_bark"),
    )  # fmt: skip
    for split in ("train", "validate"):
        trees.dump(tmp_path / "annotations" / split / "scene0.jams", scene, indent=2)
        (tmp_path / "annotations" / split / "scene0.txt").write_text("1.265813\t1.675981\tgun_shot\n")
        trees.audio(tmp_path / "audio" / split / "scene0.wav", rate=44100)
    report, clips = read("urbansed", tmp_path)
    assert set(clips) == {"train/scene0", "validate/scene0"}
    assert spans(clips["train/scene0"]) == [(1.265813, 1.675981, "gun_shot"), (3.164048, 4.0, "dog_bark")]
    assert report.audio == {(44100, 1): 2}
    assert set(read("urbansed", tmp_path, "validate")[1]) == {"validate/scene0"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "no list 'annotations'"),
        ('{"annotations": []}', "0 annotations with namespace scaper"),
        ('{"annotations": [{"namespace": "scaper", "data": {}}]}', "no list 'data'"),
        ('{"annotations": [{"namespace": "scaper", "data": [{"value": {"label": "dog"}}]}]}', "observation 1"),
    ],
)
def test_urbansed_reports_what_is_no_jams(tmp_path: Path, trees, content: str, words: str) -> None:
    trees.dump(tmp_path / "annotations" / "train" / "good.jams", trees.jams(("foreground", 1.0, 1.0, "siren")))
    (tmp_path / "annotations" / "train" / "bad.jams").write_text(content)
    trees.audio(tmp_path / "audio" / "train" / "good.wav")
    report, clips = read("urbansed", tmp_path, skip_invalid=True)
    assert list(clips) == ["train/good"]
    assert report.first[0].file == "annotations/train/bad.jams" and words in report.first[0].message


# ---------------------------------------------------------------- AudioSet strong


def audioset(root: Path, *lines: str) -> Path:
    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    (root / "audioset_train_strong.tsv").write_text(header + "".join(line + "\n" for line in lines))
    (root / "mid_to_display_name.tsv").write_text("/m/09x0r\tSpeech\n/m/053hz1\tCheering\n/t/dd00003\tMale singing\n")
    return root


def test_audioset_labels_become_display_names(tmp_path: Path, trees) -> None:
    audioset(tmp_path, "s9d-2nhuJCQ_30000\t2.627\t3.237\t/m/053hz1", "-Wd_30000\t0\t1.5\t/t/dd00003")
    trees.audio(tmp_path / "audio" / "train" / "s9d-2nhuJCQ_30000.flac")
    trees.audio(tmp_path / "audio" / "train" / "Y-Wd.wav")
    _, clips = read("audioset-strong", tmp_path)
    assert spans(clips["s9d-2nhuJCQ_30000"]) == [(2.627, 3.237, "Cheering")]
    assert spans(clips["-Wd_30000"]) == [(0.0, 1.5, "Male singing")]
    assert clips["-Wd_30000"].split == "train"


def test_audioset_names_labels_near_an_unknown_one(tmp_path: Path, trees) -> None:
    audioset(tmp_path, "x_0\t0\t1\t/m/09x0s")
    trees.audio(tmp_path / "audio" / "x_0.wav")
    report = convert("audioset-strong", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    assert [(p.file, p.line, p.kind) for p in report.first] == [("audioset_train_strong.tsv", 2, "unknown label")]
    assert "did you mean '/m/09x0r'" in report.first[0].message


# ---------------------------------------------------------------- AudioGrounding


def phrase(text: str, *segments: object) -> dict:
    return {"phrase": text, "start_index": 0, "end_index": 1, "segments": list(segments)}


def test_audiogrounding_gives_a_query_a_phrase(tmp_path: Path, trees) -> None:
    items = [
        {"audiocap_id": 97151, "audio_id": "Yab.wav", "tokens": "a dog barks as a man speaks",
         "phrases": [phrase("a dog barks", [0.5, 1.5], [3, 4]), phrase("a man speaks")]},
        {"audiocap_id": 97152, "audio_id": "Yab.wav", "tokens": "a dog", "phrases": [phrase("a dog", [0.5, 1.5])]},
    ]  # fmt: skip
    trees.dump(tmp_path / "val.json", items)
    trees.audio(tmp_path / "audio" / "val" / "Yab.wav")
    _, clips = read("audiogrounding", tmp_path)
    queries = clips["Yab-97151"].queries
    assert [(q.text, q.intervals) for q in queries] == [
        ("a dog barks", ((0.5, 1.5), (3.0, 4.0))), ("a man speaks", ()),
    ]  # fmt: skip
    assert set(clips) == {"Yab-97151", "Yab-97152"} and clips["Yab-97152"].split == "val"


def test_audiogrounding_refuses_the_layout_of_version_1(tmp_path: Path, trees) -> None:
    trees.dump(tmp_path / "test.json", {"audiocap_id": {"0": 1}})
    (tmp_path / "audio").mkdir()
    with pytest.raises(ValueError, match=r"test\.json:1: expected a JSON list.*an object"):
        read("audiogrounding", tmp_path)


# ---------------------------------------------------------------- CASTELLA, Clotho-Moment


def moment(video: str, query: object, *windows: object, **changes: object) -> str:
    item = {"qid": f"{video}_1", "query": query, "duration": 3, "vid": video, "relevant_windows": list(windows)}
    return json.dumps(item | changes) + "\n"


def test_castella_gathers_the_queries_of_a_recording(tmp_path: Path, trees) -> None:
    lines = [moment("ab-C_d", "a dog barks", [0, 1], [2, 3]), moment("ab-C_d", "a man speaks", [1, 2]),
             moment("e", "rain", [0, 3])]  # fmt: skip
    (tmp_path / "castella_val_release.jsonl").write_text("".join(lines))
    (tmp_path / "castella_train_release.jsonl").write_text(moment("f", "wind", [0, 1]))
    trees.audio(tmp_path / "audio" / "val" / "ab-C_d.wav")
    trees.audio(tmp_path / "audio" / "e.flac")
    trees.audio(tmp_path / "train" / "f.wav")
    _, clips = read("castella", tmp_path)
    assert [(q.text, q.intervals) for q in clips["ab-C_d"].queries] == [
        ("a dog barks", ((0.0, 1.0), (2.0, 3.0))), ("a man speaks", ((1.0, 2.0),)),
    ]  # fmt: skip
    assert {clip.id: (clip.split, clip.duration, clip.tasks) for clip in clips.values()} == {
        "f": ("train", 4.0, ("ag",)), "ab-C_d": ("val", 4.0, ("ag",)), "e": ("val", 4.0, ("ag",)),
    }  # fmt: skip
    assert set(read("castella", tmp_path, "train")[1]) == {"f"}


def test_clotho_moment_is_read_as_published_and_as_its_generator_writes_it(tmp_path: Path, trees) -> None:
    name = "Singapore_0.0_60.0"
    (tmp_path / "clotho_moment_val_release.jsonl").write_text(moment(name, "a toilet", [1.1, 2.5], fg_dB=0.7))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "test.jsonl").write_text(moment(name, "a cat", [0.1, 0.5], qid="00007"))
    trees.audio(tmp_path / "wav" / "32000hz" / "valid" / f"{name}.wav", rate=32000)
    trees.audio(tmp_path / "wav" / "32000hz" / "test" / f"{name}.wav", rate=32000)
    clips = [*read("clotho-moment", tmp_path, "val")[1].values(), *read("clotho-moment", tmp_path, "test")[1].values()]
    assert [(c.id, c.split, c.audio.parent.name, c.queries[0].text) for c in clips] == [
        (name, "val", "valid", "a toilet"), (name, "test", "test", "a cat"),
    ]  # fmt: skip


def test_moments_that_cannot_be_read_are_reported_by_line(tmp_path: Path, trees) -> None:
    trees.audio(tmp_path / "audio" / "a.wav")
    bad = [moment("a", "x", [0]), moment("a", 3, [0, 1]), moment("a", "x", relevant_windows=None), "[1]\n",
           moment("b", "no audio", [0, 1]), moment("a", "again", [0, 1]),
           moment("a", "late", [3, 9], qid="a_2")]  # fmt: skip
    path = tmp_path / "castella_test_release.jsonl"
    path.write_text("".join(bad))
    report = convert("castella", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    assert not report.written
    assert {p.line for p in report.first} == {1, 2, 3, 4, 5, 7}
    messages = " ".join(p.message for p in report.first)
    for words in ("a window is [0]", "'query' is 3", "'relevant_windows' is None", "expected an object", "no audio"):
        assert words in messages, words
    path.write_text("{\n")
    with pytest.raises(ValueError, match=r"castella_test_release\.jsonl:1: not valid JSON"):
        convert("castella", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    path.unlink()
    with pytest.raises(ValueError, match=r"none of castella_\{train,val,test\}_release.jsonl in it"):
        read("castella", tmp_path)


# ---------------------------------------------------------------- FTAR


def ftar_item(question: str, answer: str, **changes: object) -> dict:
    return {
        "id": "Y1.flac", "audio": "/data/WavCaps/AudioSet_SL_flac/Y1.flac", "question": question, "answer": answer,
        "dataset": "AudioSet Strong", "task": "", "split": "train", "duration": 4,
    } | changes  # fmt: skip


def test_ftar_reads_queries_and_captions(tmp_path: Path, trees) -> None:
    question = "What are the start and end times of audio matching 'a man's  voice'?"
    trees.dump(tmp_path / "train" / "temporal_audio_grounding.json", [ftar_item(question, "0.5-1.25, 2 - 3.5")])
    answer = (
        "0.90 - 1.32, 2.71 - 2.81, brief impacts; 2 or 3 of them, are heard. 0.00 - 4.00, A truck dominates the scene."
    )
    trees.dump(
        tmp_path / "train" / "dense_audio_caption.json",
        [ftar_item("What events?", answer), ftar_item("What events?", answer, duration=0)],
    )
    trees.dump(tmp_path / "train" / "open_audio_TQA.json", [])
    trees.audio(tmp_path / "audio" / "AudioSet_SL_flac" / "Y1.flac")
    report, clips = read("ftar", tmp_path)
    assert clips["train/temporal_audio_grounding/1"].tasks == ("ag",)
    assert {c.tasks for name, c in clips.items() if "dense_audio_caption" in name} == {("dac",)}
    query = clips["train/temporal_audio_grounding/1"].queries[0]
    assert (query.text, query.intervals) == ("a man's voice", ((0.5, 1.25), (2.0, 3.5)))
    impacts, truck = "brief impacts, 2 or 3 of them, are heard.", "A truck dominates the scene."
    dense = clips["train/dense_audio_caption/1"]
    assert spans(dense) == [(0.9, 1.32, impacts), (2.71, 2.81, impacts), (0.0, 4.0, truck)]
    assert [e.caption for e in dense.events] == [impacts, impacts, truck]
    where = "train/dense_audio_caption.json"
    assert [line for line in report.repairs.lines() if "';'" in line] == [
        f"2 captions with ';', which parts events in an answer: written with ',' ({where}:1, {where}:2)"
    ]
    assert report.ignored == [("train/open_audio_TQA.json", "asks for no events")]
    assert len(read("ftar", tmp_path, "train/temporal_audio_grounding")[1]) == 1


@pytest.mark.parametrize(
    ("question", "query"),
    [
        ("When does 'a man's voice' sound?", "a man's voice"),
        ("When is 'the dogs' barking' heard?", "the dogs' barking"),
        ('When is "a man\'s  voice" heard?', "a man's voice"),
        ("When is \u201ca dog\u201d heard?", "a dog"),
        ("It's loud: when is 'a dog'?", "a dog"),
        ("When is 'a man saying \"hi\"' heard?", 'a man saying "hi"'),
    ],
)
def test_ftar_takes_the_one_text_in_quotes(tmp_path: Path, trees, question: str, query: str) -> None:
    trees.dump(tmp_path / "train" / "temporal_audio_grounding.json", [ftar_item(question, "0.5-1.25")])
    trees.audio(tmp_path / "audio" / "Y1.flac")
    (clip,) = read("ftar", tmp_path)[1].values()
    assert clip.queries[0].text == query


@pytest.mark.parametrize(
    ("name", "item", "words"),
    [
        ("temporal_audio_grounding", ftar_item("When \"a dog\" or 'a cat'?", "1-2"), "2 texts in quotes"),
        ("temporal_audio_grounding", ftar_item("When is it loud?", "1-2"), "no query in quotes"),
        ("temporal_audio_grounding", ftar_item("When 'a dog' or 'a cat'?", "1-2"), "2 texts in quotes in the question"),
        ("temporal_audio_grounding", ftar_item("When 'dog'?", "at 3 o'clock"), "not a list of intervals"),
        ("temporal_audio_grounding", ftar_item("When 'dog'?", "1-2 to the end"), "not a list of intervals"),
        ("temporal_audio_grounding", ftar_item("When 'dog'?", ""), "'answer' is ''"),
        ("dense_audio_caption", ftar_item("What?", "A dog barks."), "does not begin with an interval"),
        ("dense_audio_caption", ftar_item("What?", "0 - 1, 2 - 3, "), "no caption behind"),
        ("dense_audio_caption", ftar_item("What?", "0 - 1, 2 - 3 of them."), "would not be read back from an answer"),
        ("dense_audio_caption", ftar_item("What?", "0 - 1, counting 3-2-1."), "would not be read back from an answer"),
        ("dense_audio_caption", ftar_item("What?", "0 - 1, dog", duration=10), "10 s are stated"),
        ("dense_audio_caption", ftar_item("What?", "0 - 1, dog", audio="/data/../../etc/x.wav"), "no audio"),
        ("dense_audio_caption", "text", "'audio' is None"),
    ],
)
def test_ftar_reports_what_it_cannot_read(tmp_path: Path, trees, name: str, item: object, words: str) -> None:
    trees.dump(tmp_path / "test" / f"{name}.json", [item])
    trees.audio(tmp_path / "audio" / "Y1.flac")
    report = convert("ftar", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    assert not report.written and words in report.first[0].message and report.first[0].line == 1


# ---------------------------------------------------------------- long lists


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_item_by_item_across_pieces(tmp_path: Path, trees, monkeypatch, indent: int | None) -> None:
    from timepro.data.formats import json_files

    monkeypatch.setattr(json_files, "_PIECE", 7)
    items = [{"a": [1.5, "x, ]"], "b": {"c": None}}, 12, "ü", [], 3.25]
    trees.dump(tmp_path / "x.json", items, indent)
    assert list(json_items(tmp_path / "x.json")) == list(enumerate(items, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1},\n {"b": }]', r"x\.json:2: item 2 is not valid JSON"),
        ('[{"a": 1}\n {"b": 2}]', r"x\.json:2: not valid JSON: expected ',' or '\]' behind item 1"),
        ('[{"a": 1},\n', r"x\.json:2: item 2 is not valid JSON"),
        ('[1, 2]\n\n[3]', r"x\.json:3: not valid JSON: more text behind the list"),
        ("", r"x\.json:1: expected a JSON list"),
        ("[" * 100_000, r"x\.json:1: item 1 is nested too deeply"),
    ],
)  # fmt: skip
def test_a_broken_list_names_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        list(json_items(tmp_path / "x.json"))
