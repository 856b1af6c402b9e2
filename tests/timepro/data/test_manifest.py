from __future__ import annotations

import json
from pathlib import Path

import pytest

from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import read_manifest, write_manifest


def line(**changes: object) -> dict:
    event = {"onset": 0.52, "offset": 1.2, "label": "glass_breaking"}
    return {"id": "a", "audio": "a.flac", "duration": 4.0, "events": [event], "queries": []} | changes


def event(**changes: object) -> dict:
    return line(events=[{"onset": 0.52, "offset": 1.2, "label": "siren"} | changes])


def write(folder: Path, *lines: object) -> Path:
    (folder / "a.flac").write_bytes(b"x")
    path = folder / "m.jsonl"
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in lines))
    return path


def test_round_trip_keeps_every_field_and_moves_with_its_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    (first / "audio").mkdir(parents=True)
    (first / "audio" / "a.flac").write_bytes(b"x")
    events = (
        ManifestEvent(0.52, 1.2, "glass_breaking", "glass shatters", 0.76, 1.44),
        ManifestEvent(2.0, 3.0, "siren"),
    )
    queries = (Query("glass breaking", ((0.52, 1.2),), ((0.76, 1.44),)), Query("speech", ()))
    clip = Clip("a", first / "audio" / "a.flac", 4.0, events, queries)
    write_manifest(first / "m.jsonl", [clip])
    assert read_manifest(first / "m.jsonl") == [clip]
    assert json.loads((first / "m.jsonl").read_text())["audio"] == "audio/a.flac"
    first.rename(second)
    assert read_manifest(second / "m.jsonl")[0].audio == second / "audio" / "a.flac"


def test_failed_write_leaves_the_old_manifest_and_no_other_file(tmp_path: Path) -> None:
    path = write(tmp_path, line())
    before = path.read_bytes()
    bad = Clip("b", tmp_path / "a.flac", float("nan"), ())
    with pytest.raises(ValueError):
        write_manifest(path, [Clip("a", tmp_path / "a.flac", 1.0, ()), bad])
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.flac", "m.jsonl"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"id": "b",', ["not valid JSON"]),
        ("[1]", ["the line", "object"]),
        ({k: v for k, v in line(id="b").items() if k != "duration"}, ["missing key", "'duration'"]),
        (line(id="b", durations=4.0), ["unknown key 'durations'", "'duration'"]),
        (event(labels="x") | {"id": "b"}, ["unknown key 'events[0].", "Rename or remove"]),
        (line(), ["'id'", "already used on line 1"]),
        (event(onset=1.2) | {"id": "b"}, ["'events[0].offset'", "not before"]),
        (event(offset=4.002) | {"id": "b"}, ["'events[0].offset'", "beyond", "4.0 s"]),
        (event(onset=-0.1) | {"id": "b"}, ["'events[0].onset'", "-0.1"]),
        (event(offset=float("nan")) | {"id": "b"}, ["'events[0].offset'", "finite"]),
        (event(offset=10**400) | {"id": "b"}, ["'events[0].offset'", "finite"]),
        (event(onset="0.1") | {"id": "b"}, ["'events[0].onset'", "number"]),
        (event(label="") | {"id": "b"}, ["'events[0].label'", "empty"]),
        (event(annotated_onset=0.7) | {"id": "b"}, ["'events[0].annotated_offset'", "both"]),
        (line(id="b", duration=0), ["'duration'", "above 0"]),
        (line(id="b", events={}), ["'events'", "list"]),
        (line(id="b", tasks=["sed", "adc"]), ["'tasks[1]'", "unknown task 'adc'. Did you mean 'dac'?"]),
        (line(id="b", tasks=["no_such_module_here:Task"]), ["'tasks[0]'", "cannot import module 'no_such_module_h"]),
        (line(id="b", tasks=[[]]), ["'tasks[0]'", "expected a task's name, got []"]),
        (line(id="b", tasks=[]), ["'tasks'", "leave the key out"]),
        (line(id="b", queries=[{"text": "x", "intervals": [[1.0]]}]), ["'queries[0].intervals[0]'"]),
        (line(id="b", queries=[{"text": "x", "intervals": [[1, 9]]}]), ["'queries[0].intervals[0][1]'", "beyond"]),
        (line(id="b", audio="gone.flac"), ["'audio'", "gone.flac"]),
    ],
)
def test_bad_line_names_file_line_and_key(tmp_path: Path, bad: object, words: list[str]) -> None:
    path = write(tmp_path, line(), "", bad)
    with pytest.raises(ValueError) as caught:
        read_manifest(path)
    for word in [f"{path}:3: ", *words]:
        assert word in str(caught.value)


def test_event_may_end_a_millisecond_late(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path, event(offset=4.0009)))[0].events[0].offset == 4.0009


def test_missing_audio_is_accepted_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, line(audio="gone.flac"))
    assert read_manifest(path, check_audio=False)[0].audio == tmp_path / "gone.flac"


def test_empty_and_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.jsonl:1: the manifest holds no clips"):
        read_manifest(write(tmp_path, ""))
    with pytest.raises(FileNotFoundError, match="gone.jsonl"):
        read_manifest(tmp_path / "gone.jsonl")


def test_labelled_gives_either_kind_of_times_in_order(tmp_path: Path) -> None:
    late = ManifestEvent(2.0, 3.0, "siren", None, 2.2, 3.2)
    early = ManifestEvent(0.5, 1.0, "engine", None, 0.7, 1.2)
    clip = Clip("c7", tmp_path / "a.flac", 4.0, (late, early))
    exact = [(e.onset, e.offset, e.label) for e in clip.labelled("exact")]
    assert exact == [(0.5, 1.0, "engine"), (2.0, 3.0, "siren")]
    annotated = [(e.onset, e.offset, e.label) for e in clip.labelled("annotated")]
    assert annotated == [(0.7, 1.2, "engine"), (2.2, 3.2, "siren")]
    with pytest.raises(ValueError, match="c7.*siren.*no annotated times"):
        Clip("c7", tmp_path / "a.flac", 4.0, (ManifestEvent(2.0, 3.0, "siren"),)).labelled("annotated")
    with pytest.raises(ValueError, match="exactly"):
        clip.labelled("exactly")  # type: ignore[arg-type]
