"""Silent, shifted and swapped audio: what is made of it, and that listeners and deaf models are told apart."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.answers import parse_answer, write_answer
from timepro.cli import main
from timepro.controls import KINDS, Shift, control_report, find_shift, make_controls
from timepro.data.audio import read_audio
from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import write_manifest
from timepro.events import Event
from timepro.tasks.samples import evaluation_samples

RATE = 16000
BURSTS = ([(0.6, 1.2)], [(0.4, 1.0), (2.0, 3.0)], [(3.0, 3.8)], [(1.0, 1.6), (1.8, 2.4), (3.4, 3.9)], [])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Clips of 4 s with bursts of noise, the last one without any."""
    clips = []
    for number, bursts in enumerate(BURSTS):
        audio = np.zeros(4 * RATE, np.float32)
        for onset, offset in bursts:
            part = slice(round(onset * RATE), round(offset * RATE))
            audio[part] = np.random.default_rng(number).uniform(-0.5, 0.5, part.stop - part.start)
        soundfile.write(tmp_path / f"{number}.wav", audio, RATE)
        events = tuple(ManifestEvent(onset, offset, "siren") for onset, offset in bursts)
        clips.append(Clip(f"c{number}", tmp_path / f"{number}.wav", 4.0, events, (Query("a siren", tuple(bursts)),)))
    write_manifest(tmp_path / "test.jsonl", clips)
    return tmp_path / "test.jsonl"


def heard(path: Path, label: str = "siren") -> list[Event]:
    """What a perfect listener hears: the bursts, by their energy in frames of 20 ms, joined over gaps of one frame."""
    audio = read_audio(path, RATE)
    active = [np.abs(audio[i : i + 320]).max() > 0.05 for i in range(0, len(audio), 320)]
    edges = np.flatnonzero(np.diff(np.array([False, *active, False]).astype(int)))
    return [Event(a * 0.02, b * 0.02, label) for a, b in edges.reshape(-1, 2).tolist()]


def test_a_cut_lies_in_a_pause_and_every_event_moves_far_enough() -> None:
    rng = random.Random(0)
    none = 0
    for _ in range(2000):
        duration = rng.uniform(1, 12)
        reference = []
        for _ in range(rng.randint(0, 4)):
            onset = rng.uniform(0, duration - 0.1)
            reference.append(Event(onset, min(duration, onset + rng.uniform(0.1, 4)), "x"))
        shift = find_shift(reference, duration)
        if shift is None:
            none += 1
            continue
        assert 0 < shift.cut < duration
        for event, moved in zip(sorted(reference, key=shift.of), sorted(reference, key=shift.of), strict=True):
            assert moved is event
            assert shift.cut <= event.onset - 0.1 + 1e-9 or shift.cut >= event.offset + 0.1 - 1e-9
            assert abs(shift.of(event)) >= 0.5
        for event in shift.moved(reference):
            assert event.onset >= -1e-9 and event.offset <= duration + 1e-9
    assert 0 < none < 1000
    assert find_shift([Event(0.0, 4.0, "x")], 4.0) is None  # no pause
    assert find_shift([Event(0.2, 3.8, "x")], 4.0) is None  # one that is too short to move by


def test_the_best_of_all_cuts_on_the_grid_is_found() -> None:
    rng = random.Random(1)
    for _ in range(300):
        reference = [Event(t, t + 0.5, "x") for t in (rng.uniform(0, 9) for _ in range(rng.randint(1, 4)))]
        ways = []
        for cut in np.arange(0, 9.6, 0.04):
            if all(cut <= e.onset - 0.1 or cut >= e.offset + 0.1 for e in reference):
                ways.append(min(abs(Shift(float(cut), 9.6).of(e)) for e in reference))
        shift, best = find_shift(reference, 9.6), max(ways, default=0.0)
        if best >= 0.5:
            assert shift is not None
            assert min(abs(shift.of(e)) for e in reference) >= best - 0.05


def test_audio_moves_as_its_reference_is_said_to(manifest: Path, tmp_path: Path) -> None:
    samples = evaluation_samples(manifest, "sed")
    controls = make_controls(samples, tmp_path)
    assert [c.kind for c in controls] == sorted((c.kind for c in controls), key=KINDS.index)
    shifted = [c for c in controls if c.kind == "shifted"]
    assert len(shifted) == len(samples)
    for control in shifted:
        assert len(read_audio(control.sample.audio)) == 4 * RATE
        found = heard(control.sample.audio)
        assert len(found) == len(control.sample.reference)
        for event, right in zip(found, control.sample.reference, strict=True):
            assert (event.onset, event.offset) == pytest.approx((right.onset, right.offset), abs=0.03)
    for control in controls:
        if control.kind == "silent":
            assert (
                not read_audio(control.sample.audio).any()
                and control.sample.reference == samples[control.index].reference
            )
        if control.kind == "swapped":
            assert control.sample.audio != samples[control.index].audio
            assert control.sample.question == samples[control.index].question


@pytest.mark.parametrize("task", ["sed", "ag"])
def test_a_listener_and_a_deaf_model_are_told_apart(manifest: Path, tmp_path: Path, task: str) -> None:
    samples = evaluation_samples(manifest, task)
    controls = make_controls(samples, tmp_path)
    label = "siren" if task == "sed" else ""

    def answer(path: Path, listens: bool, index: int) -> str:
        events = heard(path, label) if listens else [replace(e, label=label) for e in samples[index].reference]
        return write_answer(events, "digits")

    for listens in (True, False):
        own = [parse_answer(answer(sample.audio, listens, i)) for i, sample in enumerate(samples)]
        texts = [answer(c.sample.audio, listens, c.index) for c in controls]
        found = control_report(samples, own, controls, texts)[task]
        metric = "eb_f1_micro" if task == "sed" else "miou"
        assert found["silent"]["answered"] == (0.0 if listens else 0.8)
        assert (found["shifted"][metric] > 0.9) == listens
        assert (found["shifted"]["moved"] > 0.9) == listens and (found["shifted"]["stayed"] > 0.9) == (not listens)
        assert found["shifted"]["left_out"] == 0
        assert (found["swapped"][metric] < 0.5) == listens  # the deaf one's answers fit any clip
        if listens:
            assert found["shifted"]["shift"] == {"n": 7, "median_error": pytest.approx(0.0, abs=0.021)}


def test_one_clip_alone_cannot_be_swapped(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task sed has one clip alone"):
        make_controls(evaluation_samples(manifest, "sed")[:1], tmp_path)


def test_a_checkpoint_is_asked_about_other_audio(tiny_checkpoint: Path, manifest: Path, tmp_path: Path, capsys) -> None:
    words = ["evaluate", "--backend", "transformers", "--max-tokens", "12", "--checkpoint", str(tiny_checkpoint)]
    out = ["--out", str(tmp_path / "a.jsonl"), str(manifest), "--task", "sed", "--task", "ag", "--controls"]
    assert main([*words, *out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]
    for task, kinds in (("sed", KINDS), ("ag", (*KINDS, "constant"))):
        assert {kind: found["n"] for kind, found in told[task]["controls"].items()} == dict.fromkeys(kinds, 5)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 10  # its answers to the clips themselves alone
    assert main([*words, *out]) == 0
    said = capsys.readouterr().out
    assert said.count("Does it listen?") == 2 and "another clip" in said and "name events that are not there" in said
    assert main(["evaluate", "a.tsv", "b.tsv", "--controls"]) == 2
    assert "--controls needs --checkpoint" in capsys.readouterr().err
