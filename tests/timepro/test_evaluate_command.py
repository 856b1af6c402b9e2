"""`timepro evaluate`: from files to numbers, tables and messages."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from timepro.cli import main
from timepro.events import Event, ParsedAnswer
from timepro.metrics import corpus_event_f1, event_report

DESED = Path(__file__).parents[2].parent / "shared/data/desed_baseline"
HEADER = "filename\tonset\toffset\tevent_label\n"
REFERENCE = HEADER + "a.wav\t0\t1\tDog\na.wav\t2\t3\tDog\nb.wav\t\t\t\nc.wav\t0\t2\tCat\n"


def write(folder: Path, **texts: str) -> list[str]:
    for name, text in texts.items():
        (folder / f"{name}.tsv").write_text(text)
    return [str(folder / f"{name}.tsv") for name in texts]


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["evaluate", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["evaluate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("timepro: ")
    return err


def test_published_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    if not DESED.is_dir():
        pytest.skip(f"real labels not found at {DESED}")
    files = [str(DESED / "student_predictions.csv"), str(DESED / "validation.tsv")]
    report = as_json(capsys, *files, "--durations", str(DESED / "validation_durations.tsv"))
    assert report["n"] == 1168
    assert round(100 * report["event_based"]["micro"]["f1"], 3) == 40.950
    assert round(100 * report["event_based"]["macro_sed_eval"]["f1"], 3) == 39.873
    assert round(100 * report["segment_based_1s"]["micro"]["f1"], 2) == 75.47
    assert round(100 * report["segment_based_1s"]["macro"]["f1"], 2) == 69.35
    low, high = report["event_based"]["micro"]["f1_interval"]
    assert 0.38 < low < 0.40 and 0.42 < high < 0.44
    assert report["files"] == {"reference": 1168, "predictions": 1140, "ignored": 0, "unanswered": 28}
    assert any(note.startswith("28 files in ") for note in report["notes"])
    assert any(note.startswith("16 files with a reference event that ends after") for note in report["notes"])
    assert any(note.startswith("6 files with a predicted event that ends after") for note in report["notes"])


def test_numbers_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = HEADER + "a.wav\t0.1\t1\tDog\na.wav\t2\t3\tCat\nother.wav\t0\t1\tDog\n"
    report = as_json(capsys, *write(tmp_path, found=found, reference=REFERENCE))
    assert report["n"] == 3
    micro = report["event_based"]["micro"]
    assert (micro["f1"], micro["precision"], micro["recall"]) == pytest.approx((2 / 5, 1 / 2, 1 / 3))
    assert report["event_based"]["macro"]["f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert report["error_rate"]["event_based"]["substitution"] == pytest.approx(1 / 3)
    assert report["segment_based_1s"]["micro"]["f1"] == pytest.approx(2 / 6)
    assert report["miou"] == pytest.approx(((0.9 / 2 + 0) / 2 + 1 + 0) / 3)
    assert report["r_at"] == {"0.3": 1 / 3, "0.5": 1 / 3, "0.7": 1 / 3, "0.9": 1 / 3}
    assert (report["empty"], report["unparsable"]) == (2 / 3, 0)
    assert report["files"] == {"reference": 3, "predictions": 2, "ignored": 1, "unanswered": 2}
    assert report["class_wise"]["Dog"]["event_based"] == {
        "f1": pytest.approx(2 / 3), "precision": 1.0, "recall": 0.5, "tp": 1, "n_ref": 2, "n_est": 1,
    }  # fmt: skip


def test_collars_tolerance_and_labels_are_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, found=HEADER + "a\t0.56\t2\tCat\n", reference=HEADER + "a\t0.36\t2\tDog\n")
    for options, f1 in (
        ([], 0.0),
        (["--ignore-labels"], 0.0),  # 0.2 s by the numbers, but rounding makes it more
        (["--ignore-labels", "--tolerance", "1e-6"], 1.0),
        (["--ignore-labels", "--onset-collar", "0.3"], 1.0),
    ):
        assert as_json(capsys, *files, *options)["event_based"]["micro"]["f1"] == f1


def test_tables_name_settings_classes_and_lone_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = HEADER + "a.wav\t0.1\t1\tDog\nother.wav\t0\t1\tDog\n"
    assert main(["evaluate", *write(tmp_path, found=found, reference=REFERENCE), "--resamples", "50"]) == 0
    out = capsys.readouterr().out
    assert "found.tsv against reference.tsv, 3 files, collars 0.2 s and max(0.2 s, 0.2 of length), tolerance 0 s" in out
    for row in ("event-based, macro as sed_eval", "segment-based, 0.1 s, micro", "intersection, macro", "R@0.9", "Cat"):
        assert row in out
    assert f"1 file in {tmp_path / 'found.tsv'} only: left out ('other.wav')" in out
    assert "2 files in " in out and "scored as empty answers ('b.wav', 'c.wav')" in out


def test_many_classes_are_cut_and_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"a\t{i}\t{i + 1}\tclass{i:03}\n" for i in range(70))
    files = write(tmp_path, found=HEADER + rows, reference=HEADER + rows + "a\t80\t81\tclass069\n")
    assert main(["evaluate", *files, "--resamples", "0"]) == 0
    out = capsys.readouterr().out
    assert "the 60 most frequent; 10 more with --json" in out
    assert "class069" in out and "class065" not in out and "95 %" not in out


def test_a_runs_unparsable_answers_count_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"audio": "x", "duration": 4.0, "answer": "", "repairs": [], "events": [], "ok": True}
    dog = {"onset": 0.0, "offset": 1.0, "label": "Dog"}
    lines = [
        line | {"id": "a", "reference": [], "ok": False},
        line | {"id": "b", "reference": []},
        line | {"id": "c", "reference": [dog], "events": [dog]},
    ]
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    report = as_json(capsys, str(path), str(path))
    assert report["miou"] == pytest.approx(2 / 3)
    assert (report["unparsable"], report["empty"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert report["event_based"]["micro"]["f1"] == 1.0


@pytest.mark.parametrize("label", ["", "Dog\x01"])
def test_an_answers_event_with_a_label_of_no_class_is_a_false_positive_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], label: str
) -> None:
    dog = {"onset": 0.0, "offset": 1.0, "event_label": "Dog"}
    found, reference = tmp_path / "found.jsonl", tmp_path / "reference.jsonl"
    found.write_text(json.dumps({"filename": "a", "events": [dog, dog | {"event_label": label}]}) + "\n")
    reference.write_text(json.dumps({"filename": "a", "events": [dog]}) + "\n")
    report = as_json(capsys, str(found), str(reference))
    assert report["event_based"]["micro"]["f1"] == pytest.approx(2 / 3)
    assert any("predicted with an empty label" in note and "found.jsonl:1" in note for note in report["notes"])
    reference.write_text(found.read_text())
    assert "reference.jsonl:1: key 'events[1].event_label'" in error(capsys, str(found), str(reference))


def test_no_reference_at_all_gives_null_for_what_is_not_defined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, found=HEADER + "a\t0\t1\tDog\n", reference=HEADER + "a\t\t\t\n")
    report = as_json(capsys, *files)
    assert report["event_based"]["macro_sed_eval"]["f1"] is None
    assert report["error_rate"]["event_based"]["error_rate"] is None
    assert report["event_based"]["micro"]["f1"] == 0.0
    files = write(tmp_path, found=HEADER, reference=HEADER + "a\t\t\t\n")
    assert as_json(capsys, *files)["event_based"]["macro"]["f1"] == 1.0


def test_errors_name_the_file_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, reference, empty, bad = write(
        tmp_path, found=HEADER + "a\t0\t1\tDog\n", reference=REFERENCE, empty=HEADER, bad=HEADER + "a.wav\t3\t1\tDog\n"
    )
    message = error(capsys, found, reference)
    assert f"none of the 1 files of {found} is in {reference}: the first are 'a' and 'a.wav'" in message
    assert "--match basename" in message
    assert f"{bad}:2: column 'offset'" in error(capsys, bad, reference)
    assert f"{empty} names no files" in error(capsys, found, empty)
    assert "gone.tsv: no such file" in error(capsys, str(tmp_path / "gone.tsv"), reference)
    assert "PSDS: 3 of 3 files, the first 'a.wav', have no sampled answers" in error(capsys, empty, reference, "--psds")


@pytest.mark.parametrize("option", ["--tolerance=-1", "--onset-collar=nan", "--offset-ratio=x", "--resamples=-3"])
def test_options_are_checked(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "found.tsv", "reference.tsv", option])
    assert stop.value.code == 2
    assert f"{option.partition('=')[2]!r} is not a " in capsys.readouterr().err


def test_psds_of_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sed_scores_eval")
    dog = [{"onset": 0.0, "offset": 1.0, "event_label": "Dog"}]
    (tmp_path / "answers.jsonl").write_text(json.dumps({"filename": "a", "events": [], "samples": [dog, dog]}) + "\n")
    files = [str(tmp_path / "answers.jsonl"), *write(tmp_path, reference=HEADER + "a\t0\t1\tDog\n")]
    assert "PSDS: 1 of 1 files, the first 'a', have no duration" in error(capsys, *files, "--psds")
    durations = write(tmp_path, durations="filename\tduration\na\t10\n")
    report = as_json(capsys, *files, "--psds", "--durations", *durations)
    assert report["psds"] == dict.fromkeys(("psds1", "psds2", "psds1_events", "psds2_events"), 1.0)
    assert main(["evaluate", *files, "--psds", "--durations", *durations]) == 0
    assert "PSDS 1 (events)" in capsys.readouterr().out


def test_psds_of_events_with_confidences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sed_scores_eval")
    dog = {"onset": 0.0, "offset": 1.0, "event_label": "Dog", "confidence": 0.8}
    lines = [{"filename": "a", "duration": 10, "events": [dog]}, {"filename": "b", "duration": 10, "events": []}]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = [str(tmp_path / "answers.jsonl"), *write(tmp_path, reference=HEADER + "a\t0\t1\tDog\nb\t\t\t\n")]
    assert as_json(capsys, *files, "--psds")["psds"] == {"psds1_events": 1.0, "psds2_events": 1.0}
    del dog["confidence"]
    lines[0]["events"] = [dog, dict(dog, onset=2.0, offset=3.0, confidence=0.5)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "has the confidence None; PSDS needs one" in error(capsys, *files, "--psds")


def test_intervals_see_the_same_files_in_every_metric() -> None:
    """One class and one event a file: micro and macro are one number, so their intervals must be one too."""
    rng = random.Random(0)
    references = [[Event(0, 1, "a")] for _ in range(200)]
    answers = [ParsedAnswer([Event(0, 1, "a")] if rng.random() < 0.6 else [], True) for _ in range(200)]
    report = event_report(references, answers, n_resamples=500)
    scores = report["event_based"]
    assert scores["micro"]["f1"] == corpus_event_f1(references, [a.events for a in answers]).micro.f1
    for name in ("macro", "macro_sed_eval"):
        assert scores[name]["f1_interval"] == pytest.approx(scores["micro"]["f1_interval"], abs=1e-12)
    assert report["intersection"]["micro"]["f1_interval"] == scores["micro"]["f1_interval"]
    recall = report["miou"]
    assert report["miou_interval"] == pytest.approx((recall - 0.068, recall + 0.068), abs=0.02)
    with pytest.raises(ValueError, match="0 references and 0 answers"):
        event_report([], [])


# ---------------------------------------------------------------- other people's files

CASES = Path(__file__).parents[2].parent / "shared/cases"


@pytest.mark.parametrize(
    ("case", "reference", "f1", "counts"),
    [
        ("bare_row", "reference", 2 / 3, (1, 1, 2)),
        ("bare_row", "reference_with_tabs", 2 / 3, (1, 1, 2)),
        ("nan_row", "reference", 2 / 3, (1, 1, 2)),
        ("zero_length_prediction", "reference", 2 / 3, (1, 1, 2)),
    ],
)
def test_the_cases_score_what_they_should(
    capsys: pytest.CaptureFixture[str], case: str, reference: str, f1: float, counts: tuple[int, int, int]
) -> None:
    if not (CASES / case).is_dir():
        pytest.skip(f"the cases are not beside the repository ({CASES})")
    files = [str(CASES / case / "predictions.tsv"), str(CASES / case / f"{reference}.tsv")]
    report = as_json(capsys, *files, "--resamples", "0")
    assert report["event_based"]["micro"]["f1"] == pytest.approx(f1)
    rows = [row["event_based"] for row in report["class_wise"].values()]
    assert tuple(sum(row[key] for row in rows) for key in ("tp", "n_ref", "n_est")) == counts


def test_what_was_repaired_is_in_the_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = HEADER + "a.wav\t0\t1\tDog\na.wav\t2\t2\tDog\n"
    files = write(tmp_path, found=found, reference=HEADER + "a.wav\t0\t1\tDog\nb.wav\n")
    notes = as_json(capsys, *files, "--resamples", "0")["notes"]
    assert notes[:2] == [
        f"1 row with the file's name alone: a file without events ({files[1]}:3)",
        f"1 event predicted without length: scored as a false positive ({files[0]}:3)",
    ]


def test_a_tier_is_chosen_among_those_of_a_textgrid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("praatio")
    tiers = ("dogs", 0.5), ("cats", 1.0)  # and when their one event begins
    grid = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "2.5", "<exists>", str(len(tiers))]
    for name, onset in tiers:
        grid += ['"IntervalTier"', f'"{name}"', "0", "2.5", "2", "0", str(onset), '""', str(onset), "2.5", '"Dog"']
    sides = [str(tmp_path / side / "take.TextGrid") for side in ("found", "reference")]
    for side in sides:
        Path(side).parent.mkdir()
        Path(side).write_text("\n".join(grid) + "\n")
    assert "which tier? --tier NAME, of intervals: 'dogs', 'cats'" in error(capsys, *sides)
    assert as_json(capsys, *sides, "--tier", "cats", "--resamples", "0")["event_based"]["micro"]["f1"] == 1


def test_names_are_joined_by_their_basenames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0\t1\tDog\n")
    reference, twice, durations = write(
        tmp_path,
        reference=HEADER + "eval/public/a.wav\t0\t1\tDog\n",
        twice=HEADER + "x/a.wav\t0\t1\tDog\ny\\a.flac\t0\t1\tDog\n",
        durations="filename\tduration\na.wav\t0.5\n",
    )
    labels = str(tmp_path / "labels")
    assert "--match basename" in error(capsys, labels, reference)
    report = as_json(capsys, labels, reference, "--match", "basename", "--resamples", "0", "--durations", durations)
    assert report["event_based"]["micro"]["f1"] == 1.0
    assert any("reference event that ends after the file ('a')" in note for note in report["notes"])
    message = error(capsys, twice, reference, "--match", "basename")
    assert "'x/a.wav' and 'y\\\\a.flac' have the same basename 'a'" in message


def test_labels_are_joined_by_a_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, reference, names, short = write(
        tmp_path,
        found="file\tstart\tend\tclass\na\t0\t1\tbark\na\t2\t3\tspeech\na\t4\t5\tCat\n",
        reference=HEADER + "a\t0\t1\tDog\na\t4\t5\tCat\n",
        names="bark\tDog\nspeech\t-\n",
        short="bark\tDog\n",
    )
    columns = ("--columns", "filename=file,onset=start,offset=end,event_label=class", "--resamples", "0")
    assert "is it --columns" in error(capsys, found, reference)
    assert as_json(capsys, found, reference, *columns)["event_based"]["micro"]["f1"] == pytest.approx(2 / 5)
    report = as_json(capsys, found, reference, *columns, "--label-map", names)
    assert report["event_based"]["micro"]["f1"] == 1.0
    assert "'speech' is neither in the label map nor in the ref" in error(
        capsys, found, reference, *columns, "--label-map", short
    )


def test_labels_that_differ_in_spelling_alone_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def table(*labels: str) -> str:
        return HEADER + "".join(f"a\t{i}\t{i + 1}\t{label}\n" for i, label in enumerate(labels))

    found, reference = (
        table("people_talking", "Dog", "caf\u00e9", "water"),
        table("people talking", "Dog", "cafe\u0301"),
    )
    notes = as_json(capsys, *write(tmp_path, found=found, reference=reference), "--resamples", "0")["notes"]
    alone = "differ in spelling alone: two classes"
    assert [note for note in notes if "spelling" in note] == [
        f"label 'caf\u00e9' in found.tsv and 'cafe\\u0301' in reference.tsv {alone}",
        f"label 'people_talking' in found.tsv and 'people talking' in reference.tsv {alone}",
    ]
