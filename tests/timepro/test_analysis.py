"""Boundary errors and confusion against counting by hand, and the pictures of both."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro.analysis import boundary_errors, confusion, overlap_pairs
from timepro.cli import main
from timepro.events import Event, ParsedAnswer
from timepro.plots.analysis import arm_of
from timepro.plots.run_clips import evaluated_clips, sampled_clips
from timepro.runs import Evaluated, choose_curves, read_curves, validation_curves
from timepro.tasks import find_task


def line(reference, found, ok=True, task="sed"):
    return Evaluated("c", task, "?", Path("a.wav"), 10.0, tuple(reference), "", ParsedAnswer(list(found), ok))


def test_boundary_errors_are_answer_minus_reference_of_overlapping_events() -> None:
    reference = [Event(1.0, 2.0, "dog"), Event(1.5, 3.0, "cat"), Event(6.0, 7.0, "dog")]
    found = [Event(1.2, 2.4, "dog"), Event(1.5, 3.0, "bird"), Event(8.0, 9.0, "dog")]
    b = boundary_errors([line(reference, found)])
    assert b.onset.tolist() == pytest.approx([0.2])
    assert b.offset.tolist() == pytest.approx([0.4])
    assert (b.label, b.duration.tolist()) == (["dog"], [1.0])
    assert len(boundary_errors([line(reference, found, task="ag")]).onset) == 2  # labels do not matter there
    assert len(boundary_errors([line(reference, found, ok=False)]).onset) == 0


def total(reference, found, pairs):
    def overlap(a, b):
        shared = min(a.offset, b.offset) - max(a.onset, b.onset)
        return max(0.0, shared) / (max(a.offset, b.offset) - min(a.onset, b.onset))

    return sum(overlap(reference[i], found[j]) for i, j in pairs)


def draw(rng, n):
    starts = [rng.uniform(0, 5) for _ in range(n)]
    return [Event(s, s + rng.uniform(0.2, 2), rng.choice("ab")) for s in starts]


def test_pairs_have_the_largest_overlap_of_all_one_to_one_choices() -> None:
    rng = random.Random(0)
    for _ in range(200):
        reference, found = draw(rng, rng.randint(0, 3)), draw(rng, rng.randint(0, 4))
        pairs = overlap_pairs(reference, found, same_label=True)
        assert all(reference[i].label == found[j].label for i, j in pairs)
        best = 0.0
        for chosen in itertools.permutations([*range(len(found)), *[None] * len(reference)], len(reference)):
            tried = [(i, j) for i, j in enumerate(chosen) if j is not None and reference[i].label == found[j].label]
            best = max(best, total(reference, found, tried))
        assert total(reference, found, pairs) == pytest.approx(best)


def test_confusion_counts_every_event_once() -> None:
    reference = [Event(0, 1, "cat"), Event(2, 3, "dog"), Event(5, 6, "dog")]
    found = [Event(0.1, 1, "dog"), Event(2, 3, "dog"), Event(2, 3, "cat"), Event(8, 9, "bird")]
    labels, counts = confusion([line(reference, found)])
    assert labels == ["bird", "cat", "dog"]
    expected = np.zeros((4, 4), int)
    expected[1, 2] = 1  # the cat was taken for a dog
    expected[2, 2] = 1
    expected[2, 3] = 1  # the second dog was missed
    expected[3, 1] = expected[3, 0] = 1  # made up: a cat beside the dog, and a bird
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("rewards=eb_f1,seed=0", "rewards=eb_f1"),
        ("seed=2,rewards=eb_f1", "rewards=eb_f1"),
        ("sed_grpo-seed1", "sed_grpo"),
        ("seed=1", "all seeds"),
        ("sed_grpo", "sed_grpo"),
    ],
)
def test_arms_are_names_without_seeds(name: str, arm: str) -> None:
    assert arm_of(name) == arm


@pytest.fixture
def run(tmp_path: Path) -> Path:
    audio = tmp_path / "clip.wav"
    soundfile.write(audio, np.random.default_rng(0).normal(0, 0.1, 64000), 16000)
    folder = tmp_path / "sed_grpo-seed0"
    reference = [asdict(Event(0.4, 1.2, "dog")), asdict(Event(1.0, 2.0, "cat"))]
    found = [asdict(Event(0.6, 1.4, "dog")), asdict(Event(3.0, 9.0, "cat"))]
    (folder / "eval").mkdir(parents=True)
    for stage in ("sft", "grpo"):
        row = {"task": "sed", "question": "?", "audio": str(audio), "duration": 4.0}
        row |= {"reference": reference, "answer": "x", "events": found, "ok": True}
        lines = [json.dumps({"id": name} | row) + "\n" for name in ("test-1", "test-2")]
        (folder / "eval" / f"{stage}.jsonl").write_text("".join(lines))
    (folder / "rollouts").mkdir()
    for step in (1, 2, 3):
        answers = [{"text": "dog 0.40-1.20", "reward": step / 3}, {"text": "none", "reward": None}]
        group = {"id": "rl-1", "task": "sed", "question": "?", "audio": str(audio), "duration": 4.0}
        group |= {"reference": reference, "answers": answers}
        (folder / "rollouts" / f"step-{step:06d}.rank0.jsonl").write_text(json.dumps(group) + "\n")
    steps = [{"step": s, "reward": s / 10, "kl": 0.0} for s in range(1, 11)]
    (folder / "metrics.grpo.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps))
    return folder


def test_every_kind_of_picture_is_drawn(run: Path, tmp_path: Path) -> None:
    other = run.with_name("sed_grpo-seed1")
    shutil.copytree(run, other)
    for arguments in (
        ["errors", run],
        ["confusion", run],
        ["confusion", run, "--stage", "sft"],
        ["rewards", run],
        ["curves", run, other],
        ["clip", run, "test-1"],
        ["clip", run, "rl-1", "--step", "2"],
    ):
        out = tmp_path / "picture.png"
        out.unlink(missing_ok=True)
        assert main(["plot", *map(str, arguments), "--out", str(out)]) == 0, arguments
        assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["plot", "errors", str(run)]) == 0
    assert (run / "errors.png").is_file()


def test_formula_signs_in_labels_and_names_are_drawn_as_they_are(run: Path, tmp_path: Path) -> None:
    renamed = run.rename(run.with_name("$x_{ $y-seed0"))
    other = shutil.copytree(renamed, run.with_name("costs $5_{ or $6"))
    for path in renamed.glob("eval/*.jsonl"):
        path.write_text(path.read_text().replace('"dog"', '"costs $5_{ or $6"'))
    for arguments in (["errors", renamed], ["confusion", renamed], ["curves", renamed, other]):
        out = tmp_path / f"{arguments[0]}.svg"
        assert main(["plot", *map(str, arguments), "--out", str(out)]) == 0, arguments
        assert ("$x_{ $y" if arguments[0] == "curves" else "costs $5_{ or $6") in out.read_text()


def test_default_pictures_do_not_overwrite_one_another(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    (run / "curves.png").write_bytes(b"of the training itself")
    commands = [
        ["clip", run, "test-1"], ["clip", run, "test-2"], ["clip", run, "test-1", "test-2"], ["errors", run],
        ["clip", run, "rl-1", "--step", "1"], ["clip", run, "rl-1", "--step", "2"], ["rewards", run],
        ["confusion", run, "--stage", "sft"], ["confusion", run], ["curves", run], ["curves", run, "--keys", "kl"],
    ]  # fmt: skip
    for command in commands:
        assert main(["plot", *map(str, command)]) == 0, command
    made = {path.name for path in run.iterdir()} - before
    assert len(made) == len(commands) + 1
    assert (run / "curves.png").read_bytes() == b"of the training itself"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["errors", "gone"], "gone is not a folder"),
        (["errors", "NEAR"], "(did you mean sed_grpo-seed0?)"),
        (["curves", "RUN", "NEAR"], "(did you mean sed_grpo-seed0?)"),
        (["clip", "RUN", *[f"test-{i}" for i in range(7)]], "7 clips, but a picture holds at most 6"),
        (["clip", "RUN", "test-1", "test-1"], "test-1 is named more than once"),
        (["clip", "RUN", "rl-2", "--step", "1"], "no group of 'rl-2' (did you mean rl-1?)"),
        (["confusion", "RUN", "--stage", "control"], "no stage 'control'; it has sft, grpo"),
        (["clip", "RUN", "test-9"], "has not evaluated a sample 'test-9' in stage sft (did you mean test-"),
        (["clip", "RUN", "rl-1", "--step", "9"], "has no step 9"),
        (["rewards", "gone"], "gone is not a folder"),
        (["curves", "gone"], "gone is not a folder"),
        (["curves", "RUN", "--keys", "rewart"], "no run has recorded rewart (did you mean reward?); recorded: kl,"),
        (["curves", "RUN", "--keys", "reward,entropy"], "no run has recorded entropy; recorded: kl, reward"),
    ],
)
def test_what_cannot_be_drawn_is_refused(run: Path, capsys, arguments, words) -> None:
    places = {"RUN": str(run), "NEAR": str(run.with_name("sed_grpo-sed0"))}
    (run / "config.yaml").write_text("seed: 0\n")
    assert main(["plot", *[places.get(a, a) for a in arguments]]) == 2
    assert words in capsys.readouterr().err


def test_a_clip_shows_run_stages_and_scores(run: Path) -> None:
    (run / "config.yaml").write_text("seed: 4\n")
    (clip,), sheet = evaluated_clips(run, ["test-1"])
    assert [lane.name for lane in clip.lanes] == ["reference", "SFT 0.50", "after GRPO 0.50"]  # the dog is within 0.2 s
    assert max(e.offset for lane in clip.lanes for e in lane.events) == 4.0  # an answer beyond the clip is cut
    assert "seed 4" in sheet.heading and "SFT 0.500, after GRPO 0.500" in sheet.subheading
    assert list(sheet.classes) == ["cat", "dog"]


def test_the_number_behind_a_name_is_that_of_the_shown_clips_tasks(run: Path) -> None:
    for path in run.glob("eval/*.jsonl"):
        path.write_text(path.read_text().replace('"test-2", "task": "sed"', '"test-2", "task": "ag"'))
    (detection, grounding) = (find_task(task).main_heading for task in ("sed", "ag"))
    for ids, words in (["test-1"], detection), (["test-2"], grounding), (["test-1", "test-2"], None):
        below = evaluated_clips(run, ids)[1].subheading
        assert below.endswith(f"behind a name is the {words or f'{detection} or {grounding}'} of the clip")


def test_a_steps_answers_show_their_rewards_and_what_could_not_be_read(run: Path) -> None:
    (clip,), sheet = sampled_clips(run, 3, ["rl-1"])
    assert [(lane.name, lane.unreadable) for lane in clip.lanes] == [
        ("reference", None), ("1: reward 1.000", None), ("2: not scored", None),
    ]  # fmt: skip
    path = run / "rollouts" / "step-000003.rank0.jsonl"
    path.write_text(path.read_text().replace('"none"', '"<broken"'))
    assert sampled_clips(run, 3, ["rl-1"])[0][0].lanes[2].unreadable == "<broken"
    assert "step 3" in sheet.heading


def test_curves_of_a_run_in_progress_are_drawn(run: Path) -> None:
    with (run / "metrics.grpo.jsonl").open("a") as out:
        out.write('{"step": 11, "rew')
    assert [step for step, _ in read_curves(run, ["reward"])["reward"]] == list(range(1, 11))


def test_what_is_left_out_of_curves_is_said(run: Path) -> None:
    other = run.with_name("sed_grpo-seed1")
    shutil.copytree(run, other)
    (other / "metrics.grpo.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    curves, notes = choose_curves([run, other], None)
    assert {name: sorted(found) for name, found in curves.items()} == {run.name: ["reward"], other.name: ["reward"]}
    assert "kl is left out: it is 0 throughout" in notes and any("entropy" in note for note in notes)
    curves, notes = choose_curves([run, other], ["kl"])
    assert list(curves[run.name]) == ["kl"]  # asked for, so drawn, 0 as it is
    assert notes == [f"kl is not recorded in {other.name}"]


def test_validation_scores_over_the_training_are_among_the_curves(run: Path) -> None:
    assert validation_curves(run) == {}
    with (run / "metrics.grpo.jsonl").open("a") as out:
        for step, value in ((5, 0.25), (10, 0.5)):
            row = {"step": step, "eval/validation/eb_f1_micro": value, "eval/validation/miou": 0.9}
            out.write(json.dumps(row) + "\n")
    assert validation_curves(run) == {"eval/validation/eb_f1_micro": "Eb-F1 micro, validation"}
    found, _ = choose_curves([run], None)
    assert found[run.name]["eval/validation/eb_f1_micro"] == [(5, 0.25), (10, 0.5)]


def test_curves_are_thinned_to_means(run: Path) -> None:
    found = read_curves(run, ["reward"], most=5)["reward"]
    assert [step for step, _ in found] == [2, 4, 6, 8, 10]
    assert [value for _, value in found] == pytest.approx([(s - 0.5) / 10 for s in (2, 4, 6, 8, 10)])
