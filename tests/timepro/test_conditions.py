"""Test questions asked again: what is asked, that files hold it, and that what a model lacks shows in its scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.answers import parse_answer, write_answer
from timepro.conditions import FOLDER, KINDS, conditions_of, make_conditions, read_controls, spread, write_controls
from timepro.controls import Control
from timepro.evaluation import save_scored, score
from timepro.events import Event
from timepro.features import Processor
from timepro.tasks import Sample, find_task

N = 8


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """One event a clip of 4 s, each at a place of its own."""
    (tmp_path / "audio").mkdir()
    found = []
    for i in range(N):
        path = tmp_path / "audio" / f"{i}.wav"
        soundfile.write(path, np.full(64000, 0.01 * (i + 1), np.float32), 16000)
        events = (Event(0.2 + 0.4 * i, 0.5 + 0.4 * i, "siren"),)
        found.append(Sample(f"c{i}", "sed", path, 4.0, find_task("sed").question(), events, events))
    return found


def made(samples: list[Sample], folder: Path, two_clips: bool = True) -> list[Control]:
    longer = [replace(sample, id=f"l{i}", duration=8.0) for i, sample in enumerate(samples)]
    (folder / "made").mkdir()
    return make_conditions(samples, longer, folder / "made", two_clips)


def test_samples_are_spread_evenly_and_all_are_taken_where_there_are_no_more() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 128) == [0, 1, 2]


def test_every_sample_is_asked_in_every_condition(samples: list[Sample], tmp_path: Path) -> None:
    controls = made(samples, tmp_path)
    kinds = [control.kind for control in controls]
    assert list(dict.fromkeys(kinds)) == list(KINDS)
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, N)
    lengths = {len(control.sample.before.split()) for control in controls if control.kind == "text_first"}
    assert len(lengths) > N // 2 and min(lengths) >= 1
    for control in controls:
        if control.kind == "clip_first":
            own = samples[control.index]
            assert control.sample.audio == own.audio and control.sample.reference == own.reference
            other = next(sample for sample in samples if sample.audio == control.sample.earlier)
            assert other.id != own.id and control.other == other.reference


def test_two_clips_are_asked_only_of_workers_that_take_them(samples: list[Sample], tmp_path: Path) -> None:
    assert "clip_first" not in {control.kind for control in made(samples, tmp_path, two_clips=False)}


def test_a_query_has_no_answer_about_the_earlier_clip(samples: list[Sample], tmp_path: Path) -> None:
    asked = [replace(sample, task="ag", question="When is a siren heard?") for sample in samples]
    controls = [control for control in made(asked, tmp_path) if control.kind == "clip_first"]
    assert len(controls) == N and all(control.other is None for control in controls)


def test_a_prompt_has_what_is_in_front_of_the_clip(tiny_checkpoint: Path) -> None:
    processor = Processor(tiny_checkpoint)
    audio = processor.audio_token_id
    plain, behind = processor.prompt_ids("When?"), processor.prompt_ids("When?", before="some words here")
    assert behind.index(audio) > plain.index(audio) and plain[plain.index(audio) :] == behind[behind.index(audio) :]
    assert processor.prompt_ids("When?", clips=2).count(audio) == 2


def test_a_file_holds_the_questions_and_the_answers(samples: list[Sample], tmp_path: Path) -> None:
    controls = made(samples, tmp_path)
    path = tmp_path / "run" / FOLDER / "sft.jsonl"
    path.parent.mkdir(parents=True)
    write_controls(controls, path)
    assert read_controls(path) == (controls, [])
    texts = [f"answer {i}" for i in range(len(controls))]
    write_controls(controls, path, texts)
    assert read_controls(path) == (controls, texts)
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(ValueError, match=rf"sft.jsonl:{len(controls) + 1}: not a question"):
        read_controls(path)


def run_of(folder: Path, samples: list[Sample], controls: list[Control], answer) -> Path:
    """A run's folder with answers to the test set and to the questions."""
    (folder / "eval").mkdir(parents=True)
    (folder / FOLDER).mkdir()
    extra = replace(samples[0], id="not asked again")
    texts = [answer(sample) for sample in (*samples, extra)]
    save_scored(score([*samples, extra], texts), folder / "eval" / "sft.jsonl")
    write_controls(controls, folder / FOLDER / "sft.jsonl", [answer(control.sample) for control in controls])
    return folder


def written(events) -> str:
    return write_answer(events, "digits")


def test_scores_say_what_a_model_lacks(samples: list[Sample], tmp_path: Path) -> None:
    controls = made(samples, tmp_path)
    answers = {sample.audio: written(sample.reference) for sample in samples}

    def by_place(sample: Sample) -> str:
        """Reads a time off a token's place: it is late by what stands in front of the clip."""
        late = 0.02 * len(sample.before) + 4.0 * (sample.earlier is not None)
        events = parse_answer(answers.get(sample.audio, "")).events
        return written([Event(e.onset + late, e.offset + late, e.label) for e in events])

    def of_first(sample: Sample) -> str:
        """Tells of the first clip of a prompt."""
        return answers.get(sample.earlier or sample.audio, "none")

    place = conditions_of(run_of(tmp_path / "place", samples, controls, by_place))["sft"]["sed"]
    assert place["plain"]["n"] == N  # not the whole test set
    assert place["plain"]["eb_f1_micro"] == 1.0
    assert place["text_first"]["eb_f1_micro"] < 0.5 and place["clip_first"]["eb_f1_micro"] == 0.0
    first = conditions_of(run_of(tmp_path / "first", samples, controls, of_first))["sft"]["sed"]
    assert first["text_first"]["eb_f1_micro"] == 1.0
    assert first["clip_first"]["eb_f1_micro"] == 0.0 and first["clip_first"]["of_other"] == 1.0
    assert first["longer"]["eb_f1_micro"] == 1.0 and "of_other" not in first["longer"]


def test_questions_of_another_test_set_are_refused(samples: list[Sample], tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", samples, made(samples, tmp_path), lambda sample: "none")
    lines = (run / "eval" / "sft.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["id"] != "c3"]
    (run / "eval" / "sft.jsonl").write_text("\n".join(kept) + "\n")
    with pytest.raises(ValueError, match="asks about 'c3', which the run's evaluation does not have"):
        conditions_of(run)


def test_a_run_without_questions_has_no_conditions(samples: list[Sample], tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", samples, made(samples, tmp_path), lambda sample: "none")
    (run / FOLDER / "sft.jsonl").unlink()
    assert conditions_of(run) == {}
