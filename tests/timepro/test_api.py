"""What `from timepro import ...` offers: lazily, in the forms that people have their events in, and in the notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import timepro
from reference_models import greedy_answer, load_reference
from timepro import Event, dataframe, evaluate, load, parse_answer
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.manifest import write_manifest
from timepro.features import Processor
from timepro.tasks import find_task
from timepro.tasks.samples import samples_of

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    clips = []
    for number, seconds in enumerate((1.0, 1.6)):
        noise = np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds))
        soundfile.write(folder / f"{number}.wav", noise.astype(np.float32), 16000)
        events = (ManifestEvent(0.2, 0.6, "siren"), ManifestEvent(0.3, 0.9, "dog_bark")) if number else ()
        clips.append(Clip(f"c{number}", folder / f"{number}.wav", seconds, events))
    write_manifest(folder / "test.jsonl", clips)
    return folder / "test.jsonl"


def test_every_name_can_be_imported_and_an_unknown_one_is_named() -> None:
    for name in timepro.__all__:
        assert getattr(timepro, name) is not None
    assert set(timepro.__all__) <= set(dir(timepro))
    with pytest.raises(AttributeError, match=r"no attribute 'laod'; it offers .*load"):
        timepro.laod  # noqa: B018 - asking is the test


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, timepro; from timepro import Event, parse_answer; parse_answer('dog 0.1-0.2'); "
        "print([m for m in ('numpy', 'torch', 'transformers', 'pandas', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


FORMS = [
    Event(0.4, 1.2, "dog"),
    (0.4, 1.2, "dog"),
    [0.4, np.float64(1.2), "dog"],
    {"onset": 0.4, "offset": 1.2, "label": "dog"},
    {"onset": 0.4, "offset": 1.2, "event_label": "dog"},
]


@pytest.mark.parametrize("event", FORMS)
def test_events_are_taken_in_any_form(event) -> None:
    for answer in ([event], [(0.45, 1.25, "dog")], "dog 0.45-1.25", parse_answer("dog 0.45-1.25")):
        report = evaluate([[event], []], [answer, "none"], resamples=0)
        assert report["event_based"]["micro"]["f1"] == 1.0 and report["n"] == 2
    report = evaluate([[event]], [[(2.0, 3.0, "dog")]], resamples=0)
    assert report["event_based"]["micro"]["f1"] == 0.0


def test_clips_are_joined_by_name_and_files_are_read(manifest: Path, tmp_path: Path) -> None:
    found = {"c1": [(0.2, 0.6, "siren")]}
    by_name = evaluate(manifest, found, resamples=0)
    assert (
        by_name["event_based"]["micro"]
        == evaluate(str(manifest), {"c0": [], **found}, resamples=0)["event_based"]["micro"]
    )
    assert by_name["event_based"]["micro"]["recall"] == 0.5
    table = tmp_path / "found.tsv"
    table.write_text("filename\tonset\toffset\tevent_label\nc1\t0.2\t0.6\tsiren\n")
    assert evaluate(manifest, table, resamples=0)["event_based"] == by_name["event_based"]


@pytest.mark.parametrize(
    ("references", "answers", "kind", "message"),
    [
        ([[(0.4, "dog")]], ["none"], TypeError, r"references\[0\]\[0\] is \(0.4, 'dog'\), which is not two numbers"),
        ([[0.4, 1.2]], ["none"], TypeError, r"references\[0\]\[0\] is 0.4; an event is timepro.Event"),
        ([(0.4, 1.2, "dog")], ["none"], TypeError, r"references\[0\]\[0\] is 0.4"),
        ([[(1.2, 0.4, "dog")]], ["none"], ValueError, "onset and offset are finite seconds, onset first"),
        ([[]], [3], TypeError, r"answers\[0\] is 3; give a list of events.*an answer is a text"),
        (3, ["none"], TypeError, "reference is 3; give a file's path, a mapping"),
        ({"a": []}, ["none"], TypeError, "both have names"),
        ({"a": []}, {"b": []}, ValueError, "no reference, the first to 'b'"),
        ([[]], ["none", "none"], ValueError, "1 references and 2 answers"),
        ("gone.tsv", {}, FileNotFoundError, "gone.tsv: no such file"),
    ],
)
def test_what_is_wanted_is_said(references, answers, kind, message: str) -> None:
    with pytest.raises(kind, match=message):
        evaluate(references, answers, resamples=0)


def test_a_manifest_becomes_a_data_frame(manifest: Path, monkeypatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = dataframe(manifest)
    assert list(frame.id) == ["c0", "c1", "c1"] and list(frame.label.dropna()) == ["siren", "dog_bark"]
    assert frame.onset[1] == 0.2 and pandas.isna(frame.onset[0]) and frame.duration[0] == 1.0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="needs pandas; install it with: .*-m pip install pandas"):
        dataframe(manifest)


@pytest.mark.parametrize(
    ("family", "fixture"), [("qwen2_5_omni", "tiny_checkpoint"), ("qwen2_audio", "tiny_qwen2_audio")]
)
def test_a_loaded_checkpoint_gives_transformers_own_greedy_answer(family, fixture, manifest: Path, request) -> None:
    folder = request.getfixturevalue(fixture)
    model, reference = load(folder, device="cpu"), load_reference(family, folder)
    for sample in samples_of(timepro.read_manifest(manifest), "sed"):
        text = greedy_answer(Processor(folder), reference, sample, max_tokens=16)
        answer = model.answer(sample.audio, max_tokens=16)
        assert answer.text == text and answer.parsed == parse_answer(text) and answer.events == answer.parsed.events
        waveform, _ = soundfile.read(sample.audio, dtype="float32")
        assert model.answer(waveform, sample.question, max_tokens=16).text == text


def test_penalties_of_the_folder_do_not_reach_an_answer(tiny_checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    """A published `generation_config.json` may hold what no worker reads."""
    folder = tmp_path / "penal"
    folder.mkdir()
    for path in tiny_checkpoint.iterdir():
        (folder / path.name).symlink_to(path)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 5.0, "top_k": 1}))
    clip = timepro.read_manifest(manifest)[1].audio
    plain, penal = load(tiny_checkpoint, "cpu"), load(folder, "cpu")
    assert plain.answer(clip, max_tokens=24).text == penal.answer(clip, max_tokens=24).text
    draws = [[a.text for a in model.sample(clip, 4, max_tokens=12, seed=3)] for model in (plain, penal)]
    assert draws[0] == draws[1] and len(set(draws[0])) > 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model, clip: model.answer(clip, "When?", task="sed"), "a question, or a task"),
        (lambda model, clip: model.answer(clip, task="sedd"), "unknown task 'sedd'"),
        (lambda model, clip: model.answer(clip, task="ag"), "task ag asks about a query"),
        (lambda model, clip: model.answer(np.zeros((2, 16000), np.float32)), r"an array of shape \(2, 16000\)"),
        (lambda model, clip: model.answer(np.zeros(16000 * 31, np.float32)), "more than the encoder's 30 s"),
        (lambda model, clip: model.sample(clip, 2, temperature=0.0), "n=2 and temperature=0.0"),
        (lambda model, clip: load(model.folder, device="gpu0"), "device is 'gpu0'"),
        (lambda model, clip: load(model.folder, dtype="int8"), "dtype is 'int8'; it must be auto, float32"),
        (lambda model, clip: load(clip.parent), "is not a checkpoint folder: config.json is missing"),
    ],
)
def test_what_cannot_be_asked_is_named(tiny_checkpoint: Path, manifest: Path, ask, message: str) -> None:
    model = load(tiny_checkpoint, device="cpu")
    with pytest.raises(ValueError, match=message):
        ask(model, timepro.read_manifest(manifest)[0].audio)


def test_a_query_asks_the_grounding_question(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint, device="cpu")
    assert model.question(query="a siren") == find_task("ag").question("a siren")
    assert model.question() == find_task("sed").question()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tiny_checkpoint: Path, manifest: Path, monkeypatch, capsys) -> None:
    """Its code cells in one namespace, as a kernel runs them; a kernel itself is one more package."""
    pytest.importorskip("pandas")
    monkeypatch.setenv("TIMEPRO_CHECKPOINT", str(tiny_checkpoint))
    monkeypatch.setenv("TIMEPRO_MANIFEST", str(manifest))
    cells = json.loads(notebook.read_text())["cells"]
    namespace: dict[str, object] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert not cell["outputs"], f"cell {number}: kept without outputs"
            exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), namespace)
    assert "c1" in capsys.readouterr().out and "f1" in namespace["report"]["event_based"]["micro"]


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS
