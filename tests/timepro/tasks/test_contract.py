"""What every task keeps, those shipped and one from outside: samples, scores, tables, files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rewards import Completion, Group, build_reward
from rewards.contract import check_reward
from timepro.answers import parse_answer, write_answer
from timepro.cli import main
from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import read_manifest, write_manifest
from timepro.data.mix import mix
from timepro.evaluation import evaluation_metrics, load_scored, save_scored, score
from timepro.metrics.bootstrap import micro_f1
from timepro.runs import read_counts
from timepro.tables import results_table
from timepro.tasks import find_task
from timepro.tasks.samples import evaluation_samples, samples_of, training_samples

pytestmark = pytest.mark.usefixtures("known_tasks")

EVENTS = (
    ManifestEvent(0.4, 0.8, "dog_bark", "a dog barks", 0.6, 1.0),
    ManifestEvent(1.2, 1.6, "siren", "a siren wails", 1.4, 1.8),
)


def clips(folder: Path, count: int = 4) -> list[Clip]:
    """Clips that serve any task; the last one is silent."""
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(count):
        (folder / f"{number}.flac").write_bytes(b"x")
        events = EVENTS if number < count - 1 else ()
        query = Query("a siren", tuple((e.onset, e.offset) for e in events[1:]), ((1.4, 1.8),))
        made.append(Clip(f"c{number}", folder / f"{number}.flac", 4.0, events, (query,)))
    return made


@pytest.fixture(params=["sed", "ag", "dac", "toy"])
def name(request: pytest.FixtureRequest) -> str:
    """A task as a configuration names it."""
    if request.param == "dac":
        pytest.importorskip("pycocoevalcap")
    return request.getfixturevalue("toy") if request.param == "toy" else request.param


def right(samples) -> list[str]:
    return [write_answer(sample.reference, "digits") for sample in samples]


def test_samples_are_questions_with_right_answers(name, tmp_path):
    made = clips(tmp_path)
    samples = samples_of(made, name, "annotated")
    assert samples and len({sample.id for sample in samples}) == len(samples)
    assert {sample.audio for sample in samples} == {clip.audio for clip in made}
    assert all(sample.question and sample.task == find_task(name).name for sample in samples)
    assert any(sample.target != sample.reference for sample in samples)
    assert [s.reference for s in samples_of(made, name)] == [s.reference for s in samples]


def test_right_answers_have_the_best_score_and_none_another(name, tmp_path):
    task, samples = find_task(name), samples_of(clips(tmp_path), name)
    best, other = score(samples, right(samples)), score(samples, ["none"] * len(samples))
    assert best.main() == {task.name: pytest.approx(1.0)} and best.mean() == pytest.approx(1.0)
    assert other.mean() < 0.5
    for scored in (best, other):
        metrics = scored.metrics[task.name]
        assert all(math.isfinite(value) for value in metrics.values())
        assert micro_f1(scored.counts(task.name).sum(axis=0)) == pytest.approx(metrics[task.main_metric])
        table = results_table("", [("a", metrics)], task.columns)
        assert len(table.columns) == 1 + len(task.columns)


def test_an_evaluation_is_read_back_here_and_in_a_process_that_does_not_know_the_task(name, tmp_path):
    task, samples = find_task(name), samples_of(clips(tmp_path), name)
    scored = score(samples, right(samples))
    save_scored(scored, path := tmp_path / "eval" / "sft.jsonl")
    assert load_scored(path, samples) == scored
    code = f"from timepro.runs import read_counts; print(read_counts(__import__('pathlib').Path({str(path)!r})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"'{task.name}': ([('c0" in run.stdout
    np.testing.assert_array_equal(read_counts(path)[task.name][1], scored.counts(task.name))


def test_metrics_are_named_by_task_only_among_several(name, tmp_path):
    made = clips(tmp_path)
    write_manifest(tmp_path / "m.jsonl", made)
    task = find_task(name)
    key = f"{task.name}/{task.main_metric}"
    alone = evaluation_samples(tmp_path / "m.jsonl", name)
    assert f"eval/sft/{task.main_metric}" in evaluation_metrics("sft", score(alone, right(alone)))
    two = evaluation_samples(tmp_path / "m.jsonl", {name: 1, ("ag" if name == "sed" else "sed"): 2})
    assert f"eval/sft/{key}" in evaluation_metrics("sft", score(two, right(two)))
    assert {sample.id.rpartition("@")[2] for sample in two} == {sample.task for sample in two}


def test_weights_of_several_tasks(name, tmp_path):
    write_manifest(tmp_path / "m.jsonl", clips(tmp_path))
    other = "ag" if name == "sed" else "sed"
    lists, weights = training_samples(tmp_path / "m.jsonl", {other: 3, name: 1}, "annotated")
    assert weights == [0.75, 0.25]
    assert [{sample.task for sample in samples} for samples in lists] == [{other}, {find_task(name).name}]


def test_a_manifest_says_that_a_clip_serves_it(name, tmp_path):
    made = clips(tmp_path)
    write_manifest(tmp_path / "all.jsonl", made)
    count = mix([(name, tmp_path / "all.jsonl")], tmp_path / "mixed.jsonl", visible=False)
    short = find_task(name).name
    assert count == {short: len(made)}
    assert {json.loads(line)["tasks"][0] for line in (tmp_path / "mixed.jsonl").read_text().splitlines()} == {name}
    mixed = read_manifest(tmp_path / "mixed.jsonl")
    assert [(clip.id, clip.tasks) for clip in mixed] == [(f"{short}:c{n}", (short,)) for n in range(len(made))]
    assert [s.id for s in samples_of(mixed, name)] == [f"{short}:{s.id}" for s in samples_of(made, name)]
    with pytest.raises(ValueError, match="none of its 4 clips serves it"):
        evaluation_samples(tmp_path / "mixed.jsonl", "ag" if short == "sed" else "sed")


def test_a_reward_is_told_whether_labels_must_match(name):
    task = find_task(name)
    (event,) = parse_answer("dog 0.40-1.20").events
    completions = tuple(Completion(t, parse_answer(t), False, 4) for t in ("dog 0.40-1.20", "cat 0.40-1.20"))
    group = Group((event,), completions, task.name, 4.0, "clip")
    assert build_reward("eb_f1")(group).tolist() == [1.0, 0.0 if task.labels_are_classes else 1.0]
    own = build_reward({"name": "by_task", name: "count"})
    assert own(group).tolist() == [1.0, 1.0] and own.part_names == ("by_task", "count")
    assert check_reward(own, [task.name]).kept
    with pytest.raises(ValueError, match=f"no reward is named for task '{task.name}'; add the key '{task.name}'"):
        build_reward({"name": "by_task", "ag" if name == "sed" else "sed": "count"})(group)


def test_by_task_refuses_what_is_no_task_and_a_task_twice(toy):
    with pytest.raises(ValueError, match=r"by_task\.sde: unknown task 'sde'. Did you mean 'sed'"):
        build_reward({"name": "by_task", "sde": "miou"})
    with pytest.raises(ValueError, match="two rewards are named for task 'first'"):
        build_reward({"name": "by_task", toy: "miou", "first": "miou"})
    with pytest.raises(ValueError, match="at least one task: sed, ag, dac"):
        build_reward("by_task")


def test_a_reward_that_a_task_lacks_is_missed_before_there_is_a_group():
    inner = {"name": "by_task", "as": "inner", "ag": "miou"}
    reward = build_reward({"name": "by_task", "sed": "count", "ag": {"name": "tie_break", "main": "iou", "aux": inner}})
    reward.check_task("sed")
    reward.check_task("ag")
    with pytest.raises(ValueError, match="no reward is named for task 'dac'; add the key 'dac' to by_task"):
        reward.check_task("dac")


@pytest.mark.slow
def test_a_slow_reward_knows_the_tasks_from_outside_in_its_worker(toy, tmp_path, monkeypatch):
    """Named short, as the configuration may once the experiment has found the task by its import path."""
    find_task(toy)
    completion = Completion("0.40-1.20", parse_answer("0.40-1.20"), False, 4)
    group = Group(tuple(completion.answer.events), (completion,) * 2, "first", 4.0, "clip")
    slow = build_reward({"name": "by_task", "first": "miou", "slow": True})
    assert slow(group).tolist() == [1.0, 1.0]


def test_check_reward_takes_a_task_from_outside(toy, capsys):
    assert main(["check-reward", "miou", "--task", toy]) == 0
    assert "the contract is kept" in capsys.readouterr().out
    assert main(["check-reward", "miou", "--task", "sde"]) == 2
    assert "--task: unknown task 'sde'. Did you mean 'sed'" in capsys.readouterr().err


def test_an_evaluation_whose_task_nobody_finds_is_refused_with_its_line(tmp_path):
    samples = samples_of(clips(tmp_path), "sed")
    save_scored(score(samples, right(samples)), path := tmp_path / "sft.jsonl")
    path.write_text(path.read_text().replace('"task": "sed"', '"task": "sde"', 1))
    with pytest.raises(ValueError, match=rf"{path}:1: .*key 'task': unknown task 'sde'. Did you mean 'sed'"):
        read_counts(path)
