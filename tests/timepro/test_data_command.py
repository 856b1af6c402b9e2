"""`timepro data` on the command line: what is printed, what is written, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.cli import main
from timepro.data.formats import FORMATS
from timepro.data.manifest import read_manifest
from timepro.tasks.samples import samples_of_tasks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    table = tmp_path / "metadata" / "validation" / "validation.tsv"
    table.parent.mkdir(parents=True)
    table.write_text("filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.2\tDog\n[b].wav\t0.5\t9.0\tCat\n")
    (tmp_path / "audio" / "validation").mkdir(parents=True)
    for name in ("a", "[b]"):
        soundfile.write(tmp_path / "audio" / "validation" / f"{name}.wav", np.zeros(44100 * 2), 44100)
    return tmp_path


def data(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


def test_problems_refuse_with_a_table_and_exit_2(root: Path, capsys) -> None:
    assert data("desed", "--root", root, "--out", root / "m.jsonl") == 2
    out, err = capsys.readouterr()
    assert "metadata/validation/validation.tsv" in out and "[b].wav" in out and "7 s beyond the audio" in out
    assert "timepro: 1 problem in 1 clip, 1 without; nothing was written" in err and "--skip-invalid" in err
    assert not (root / "m.jsonl").exists()


def test_skip_invalid_writes_the_rest_and_lists_what_it_left_out(root: Path, capsys) -> None:
    assert data("desed", "--root", root, "--out", root / "m.jsonl", "--skip-invalid") == 0
    out = capsys.readouterr().out
    assert "m.jsonl: 1 clip, 0.00 hours (1 validation); 1 left out" in out
    assert "audio: 1 clip of 44100 Hz, 1 channel; read at 16000 Hz" in out
    assert "\t3\t[b].wav\ttime\t" in (root / "m.jsonl.skipped.tsv").read_text()


def test_a_map_that_keeps_nothing_is_refused(root: Path, capsys) -> None:
    (root / "map.tsv").write_text("dog\n")
    arguments = ("desed", "--root", root, "--out", root / "m.jsonl", "--label-map", root / "map.tsv", "--skip-invalid")
    assert data(*arguments) == 2
    assert "nothing is left to write" in capsys.readouterr().err
    assert not (root / "m.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["desed", "--root", "gone", "--out", "m.jsonl"], "gone: no such folder"),
        (["urbansed", "--root", "ROOT", "--out", "m.jsonl"], "no JAMS files in annotations"),
        (["ftar", "--root", "ROOT", "--out", "m.jsonl"], "no temporal_audio_grounding.json"),
        (["audiogrounding", "--root", "ROOT", "--out", "m.jsonl"], "none of train.json"),
        (["audioset-strong", "--root", "ROOT", "--out", "m.jsonl"], "neither audioset_train_strong.tsv"),
        (["desed", "--root", "ROOT", "--out", "m.jsonl", "--split", "x"], "no split 'x'; there are validation"),
        (["desed", "--root", "ROOT", "--out", "m.jsonl", "--label-map", "gone.tsv"], "no such label map"),
        (["show", "gone.jsonl"], "gone.jsonl: no such manifest"),
    ],
)
def test_wrong_use_exits_2_with_the_reason(root: Path, capsys, arguments: list[str], words: str) -> None:
    assert data(*(str(root) if word == "ROOT" else word for word in arguments)) == 2
    assert words in capsys.readouterr().err


def test_show_prints_and_draws(root: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    data("desed", "--root", root, "--out", root / "m.jsonl", "--skip-invalid")
    assert data("show", root / "m.jsonl") == 0
    assert "Dog" in capsys.readouterr().out and (root / "m.png").stat().st_size > 1000
    assert data("show", root / "m.jsonl", "--out", root / "x" / "y.png") == 0 and (root / "x" / "y.png").is_file()


@pytest.mark.parametrize("name", FORMATS)
def test_help_shows_the_layout(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        data(name, "--help")
    assert end.value.code == 0 and "ROOT/" in capsys.readouterr().out


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    """A manifest a task, in folders of their own, with the same id in both."""
    found = {}
    for task, more in (("sed", {}), ("ag", {"queries": [{"text": "a bark", "intervals": [[0.5, 1.0]]}]})):
        folder = tmp_path / task
        folder.mkdir()
        soundfile.write(folder / "a.wav", np.zeros(32000), 16000)
        event = {"onset": 0.5, "offset": 1.0, "label": "bark"}
        line = {"id": "a", "audio": "a.wav", "duration": 2.0, "events": [event], **more}
        found[task] = folder / "m.jsonl"
        found[task].write_text(json.dumps(line) + "\n")
    return found


def test_mixing_keeps_each_manifests_clips_for_its_task(parts, tmp_path: Path, capsys) -> None:
    out = tmp_path / "mixed" / "m.jsonl"
    out.parent.mkdir()
    assert data("mix", "--out", out, *(f"{task}={path}" for task, path in parts.items())) == 0
    assert "1 clip for sed, 1 clip for ag" in capsys.readouterr().out
    clips = read_manifest(out)  # which also finds the audio
    assert [(c.id, c.tasks, c.audio) for c in clips] == [
        ("sed:a", ("sed",), tmp_path / "sed" / "a.wav"),
        ("ag:a", ("ag",), tmp_path / "ag" / "a.wav"),
    ]
    sed, ag = samples_of_tasks(clips, ["sed", "ag"])
    assert [s.id for s in sed + ag] == ["sed:a@sed", "ag:a#0@ag"]


def test_mixing_refuses_what_would_lose_something(parts, tmp_path: Path, capsys) -> None:
    sed, out = parts["sed"], tmp_path / "m.jsonl"
    for arguments, words in (
        (("--out", out, f"sad={sed}"), "'sad'"),
        (("--out", out, "sed"), "expected TASK=MANIFEST"),
        (("--out", sed, f"sed={sed}"), "to be read and written"),
        (("--out", out, f"sed={sed}", f"sed={sed}"), "clip 'a' is in"),
        (("--out", out, f"sed={tmp_path / 'gone.jsonl'}"), "gone.jsonl: no such manifest"),
    ):
        assert data("mix", *arguments) == 2
        assert words in capsys.readouterr().err
    assert not out.exists() and len(read_manifest(sed)) == 1


def test_show_says_which_clips_do_not_fit_their_audio(root: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    data("desed", "--root", root, "--out", root / "m.jsonl", "--skip-invalid")
    clip = json.loads((root / "m.jsonl").read_text())
    event = {"onset": 0.5, "offset": 2.15, "label": "dog_"}
    changed = [
        clip | {"id": "long", "duration": 5.0},
        clip | {"id": "gone", "audio": "gone.wav"},
        clip | {"id": "late", "duration": 2.15, "events": [event, event | {"label": "Dog"}]},
    ]
    (root / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [clip, *changed]))
    assert data("show", root / "m.jsonl") == 2
    out, err = capsys.readouterr()
    assert "clip 'long': " in out and "lasts 2 s, but 5 s are stated" in out and "gone.wav: no such audio file" in out
    assert "'late'" not in out  # within the tolerance
    assert "labels 'Dog' and 'dog_' differ in spelling alone" in out
    assert "2 clips of " in err and "do not fit their audio" in err
    assert data("show", root / "m.jsonl", "--no-audio") == 0


ROOT = Path(__file__).resolve().parents[2]
SPLITS = {"desed": ("train", "validation", "eval/public"), "ftar": ()}  # of the published layouts


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("qwen*/*_grpo.yaml")), ids=lambda p: p.stem)
def test_the_commands_that_an_experiment_names_make_the_manifests_that_it_reads(path: Path) -> None:
    text = path.read_text()
    made = set()
    for line in text.splitlines():
        if not line.startswith("#   timepro data "):
            continue
        words = line.removeprefix("#   timepro data ").split()
        options = dict(zip(words[1::2], words[2::2], strict=False))
        if words[0] == "split":
            made |= {word.partition("=")[0] for word in words[2:]}
        else:
            made.add(options["--out"])
            assert words[0] in FORMATS and options["--split"] in (SPLITS[words[0]] or (options["--split"],))
    read = {line.split()[1] for line in text.splitlines() if line.strip().startswith(("sft:", "rl:", "valid", "test:"))}
    assert read and read <= made
