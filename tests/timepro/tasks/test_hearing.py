"""The small base's tasks: right answers by an independent reading of the clip, no time anywhere, judging."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from timepro.data.clips import Clip, ManifestEvent
from timepro.evaluation import score
from timepro.tasks import find_task
from timepro.tasks.samples import samples_of

pytestmark = pytest.mark.usefixtures("known_tasks")
TASKS = ("Tagging", "Ordering", "Counting", "Neighbours", "Captioning", "Comparing", "Reading")
MADE = (
    ("siren", 0.52, 2.0, "a siren wails"),
    ("dog_bark", 1.2, 1.6, "a dog barks"),
    ("siren", 3.04, 4.0, "a siren wails"),
)


def clip(number: int = 0, made=MADE) -> Clip:
    events = tuple(ManifestEvent(onset, offset, label, caption) for label, onset, offset, caption in made)
    return Clip(f"c{number}", Path(f"{number}.flac"), 5.0, events)


def spec(name: str) -> str:
    return f"timepro.tiny.hearing:{name}"


def asked(name: str, count: int = 200, made=MADE) -> list[tuple[str, str]]:
    samples = samples_of([clip(i, made) for i in range(count)], spec(name))
    return [(sample.question, sample.reference[0].label) for sample in samples]


@pytest.mark.parametrize("name", TASKS)
def test_no_question_and_no_answer_holds_a_time_of_the_clip(name):
    texts = " ".join(f"{question} {answer}" for question, answer in asked(name, 20))
    assert "<" not in texts
    assert name in ("Comparing", "Reading") or not re.search(r"\d\.\d", texts)


@pytest.mark.parametrize("name", TASKS)
def test_a_clip_always_gives_the_same_questions(name):
    assert asked(name, 5) == asked(name, 5)


def test_what_is_heard():
    assert set(asked("Tagging", 2)) == {("Which sounds are heard?", "dog_bark, siren")}
    assert {answer for _, answer in asked("Ordering", 2)} == {"siren, dog_bark, siren"}
    assert {answer for _, answer in asked("Captioning", 2)} == {"a siren wails, a dog barks, a siren wails"}
    assert {answer for _, answer in asked("Tagging", 1, ())} == {"none"}


def test_counts():
    found = dict(asked("Counting"))
    assert found["How many sounds are there?"] == "3"
    assert found["How often is siren heard?"] == "2"
    assert found["How often is engine heard?"] == "0"


def test_neighbours_of_a_sound_that_is_heard_once():
    assert dict(asked("Neighbours")) == {
        "Which sound begins after dog_bark?": "siren",
        "Which sound begins before dog_bark?": "siren",
    }
    assert asked("Neighbours", 5, (MADE[0], MADE[2])) == []  # none is heard once
    assert "none" in {answer for _, answer in asked("Neighbours", 50, MADE[:2])}


def test_the_larger_and_the_smaller_number():
    kinds = set()
    for question, answer in asked("Comparing"):
        numbers = [float(text) for text in re.findall(r"\d+\.\d\d", question)]
        kind = "larger" if "larger" in question else "smaller"
        assert float(answer) == (max if kind == "larger" else min)(numbers)
        assert numbers[0] != numbers[1]
        kinds.add(kind)
    assert kinds == {"larger", "smaller"}


def test_what_stands_beside_a_word():
    for question, answer in asked("Reading"):
        listed, key = re.fullmatch(r"(.*)\. What stands beside (\w+)\?", question).groups()
        assert dict(item.split(" ", 1) for item in listed.split(", "))[key] == answer


def test_answers_are_judged_as_texts():
    samples = samples_of([clip(0), clip(1)], spec("Ordering"))
    scored = score(samples, ["siren, dog_bark, siren", "dog_bark, siren"])
    assert scored.metrics["order"] == {"n": 2, "right": 0.5}


def test_tags_are_judged_one_by_one():
    samples = samples_of([clip(0), clip(1)], spec("Tagging"))
    metrics = score(samples, ["siren", "siren, engine, dog_bark"]).metrics["tag"]
    assert metrics["tag_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert metrics["right"] == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_the_right_answer_is_right(name):
    samples = samples_of([clip(i) for i in range(3)], spec(name))
    task = find_task(spec(name))
    texts = [task.write(sample.target, "digits", None) for sample in samples]
    assert score(samples, texts).main()[task.name] == 1.0
