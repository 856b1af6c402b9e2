"""Questions and right answers of the three tasks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.events import Event
from timepro.tasks import find_task
from timepro.tasks.samples import samples_of, samples_of_tasks, task_weights, tokenizer_texts

BARK = ManifestEvent(0.4, 0.8, "dog_bark", "a dog barks", 0.6, 1.0)
GLASS = ManifestEvent(1.2, 1.6, "glass_breaking", "glass shatters", 1.36, 1.8)
HEARD = Query("glass breaking", ((1.2, 1.6), (2.0, 2.4)), ((1.36, 1.8), (2.2, 2.6)))
ABSENT = Query("siren", (), ())


def clip(events=(BARK, GLASS), queries=(HEARD, ABSENT), name="c"):
    return Clip(name, Path("/clips") / f"{name}.flac", 4.0, tuple(events), tuple(queries))


def test_detection_asks_for_all_events_of_a_clip():
    (sample,) = samples_of([clip()], "sed")
    expected = (Event(0.4, 0.8, "dog_bark"), Event(1.2, 1.6, "glass_breaking"))
    assert (sample.reference, sample.target) == (expected, expected)
    assert (sample.id, sample.task, sample.audio, sample.duration) == ("c", "sed", Path("/clips/c.flac"), 4.0)


def test_annotated_times_change_the_target_and_never_the_reference():
    (sample,) = samples_of([clip()], "sed", times="annotated")
    assert sample.reference == (Event(0.4, 0.8, "dog_bark"), Event(1.2, 1.6, "glass_breaking"))
    assert sample.target == (Event(0.6, 1.0, "dog_bark"), Event(1.36, 1.8, "glass_breaking"))


def test_grounding_has_one_sample_a_query_with_every_interval():
    first, second = samples_of([clip()], "ag", times="annotated")
    assert (first.id, second.id) == ("c#0", "c#1")
    assert first.question == "When does this sound occur: glass breaking?"
    assert first.reference == (Event(1.2, 1.6, ""), Event(2.0, 2.4, ""))
    assert first.target == (Event(1.36, 1.8, ""), Event(2.2, 2.6, ""))
    assert second.question.endswith("siren?")
    assert (second.reference, second.target) == ((), ())


def test_captioning_answers_with_captions():
    (sample,) = samples_of([clip()], "dac", times="annotated")
    assert sample.reference == (Event(0.4, 0.8, "a dog barks"), Event(1.2, 1.6, "glass shatters"))
    assert sample.target == (Event(0.6, 1.0, "a dog barks"), Event(1.36, 1.8, "glass shatters"))


def test_captions_stay_with_their_events_whatever_the_manifests_order():
    (sample,) = samples_of([clip(events=(GLASS, BARK))], "dac")
    assert sample.reference == (Event(0.4, 0.8, "a dog barks"), Event(1.2, 1.6, "glass shatters"))


def test_captions_stay_with_their_events_where_annotated_times_change_the_order():
    late_bark = ManifestEvent(0.4, 0.8, "dog_bark", "a dog barks", 0.9, 1.1)
    early_glass = ManifestEvent(0.5, 0.9, "glass_breaking", "glass shatters", 0.55, 0.95)
    (sample,) = samples_of([clip(events=(late_bark, early_glass))], "dac", times="annotated")
    assert sample.target == (Event(0.55, 0.95, "glass shatters"), Event(0.9, 1.1, "a dog barks"))


def test_samples_come_in_the_manifests_order():
    names = ["b", "a", "c"]
    assert [s.id for s in samples_of([clip(name=n) for n in names], "sed")] == names
    assert [s.id for s in samples_of([clip(name=n) for n in names], "ag")] == ["b#0", "b#1", "a#0", "a#1", "c#0", "c#1"]


def test_a_silent_clip_is_a_sample_with_nothing_to_find():
    (sample,) = samples_of([clip(events=())], "sed")
    assert sample.reference == ()


def test_wrong_names_list_the_right_ones():
    with pytest.raises(ValueError, match="task: unknown task 'asr'.*Available: sed, ag, dac"):
        samples_of([clip()], "asr")
    with pytest.raises(ValueError, match="sft.label_times is 'late'; it must be auto, exact or annotated"):
        samples_of([clip()], "sed", times="late")


def test_what_a_clip_lacks_is_named():
    bare = ManifestEvent(0.4, 0.8, "dog_bark")
    with pytest.raises(ValueError, match="'c'.*no annotated times"):
        samples_of([clip(events=(bare,))], "sed", times="annotated")
    with pytest.raises(ValueError, match=r"clip c: events \['dog_bark'\] have no caption"):
        samples_of([clip(events=(bare,))], "dac")
    with pytest.raises(ValueError, match="clip c: query 'siren' has no annotated_intervals"):
        samples_of([clip(queries=(Query("siren", ((0.0, 1.0),)),))], "ag", times="annotated")


def test_the_tokenizers_texts_hold_every_question():
    whole = " ".join(tokenizer_texts())
    for task in ("sed", "ag", "dac"):
        question = samples_of([clip()], task)[0].question.replace("glass breaking", " ")
        assert question in whole
    assert "{" not in whole


def test_a_task_alone_has_the_whole_weight():
    assert task_weights("ag") == {"ag": 1.0}


def test_weights_are_normalised_in_their_order():
    assert list(task_weights({"dac": 1, "sed": 3}).items()) == [("dac", 0.25), ("sed", 0.75)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("asr", "task: unknown task 'asr'"),
        ({"sed": 1, "asr": 1}, "task: unknown task 'asr'"),
        ({"sed": 1, "timepro.tasks.sed:SoundEventDetection": 1}, "task names 'sed' twice"),
        ({"sed": 1, 3: 1}, "unknown task '3'"),
        ({"sed": 0}, "task.sed is 0; a weight is a number above 0"),
        ({"sed": -1.0}, "task.sed is -1.0"),
        ({"sed": float("nan")}, "task.sed is nan"),
        ({"sed": "1"}, "task.sed is '1'"),
        ({"sed": True}, "task.sed is True"),
        ({}, "weights such as"),
        (None, "weights such as"),
    ],
)
def test_a_bad_mixture_is_refused(spec, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        task_weights(spec)


def test_samples_of_several_tasks_have_ids_of_their_own():
    lists = samples_of_tasks([clip()], ["sed", "ag", "dac"])
    assert [[s.id for s in samples] for samples in lists] == [["c@sed"], ["c#0@ag", "c#1@ag"], ["c@dac"]]
    assert samples_of_tasks([clip()], ["sed"]) == [samples_of([clip()], "sed")]


def test_a_task_without_samples_is_refused():
    with pytest.raises(ValueError, match="no sample for task ag: none of its 1 clips has a query"):
        samples_of_tasks([clip(queries=())], ["sed", "ag"])


def test_a_clip_is_asked_only_for_the_tasks_it_serves():
    only = [replace(clip(name="a"), tasks=("sed",)), replace(clip(name="b"), tasks=("ag", "dac")), clip(name="c")]
    sed, ag, dac = samples_of_tasks(only, ["sed", "ag", "dac"])
    assert [s.id for s in sed] == ["a@sed", "c@sed"]
    assert [s.id for s in ag] == ["b#0@ag", "b#1@ag", "c#0@ag", "c#1@ag"]
    assert [s.id for s in dac] == ["b@dac", "c@dac"]


def test_a_task_that_no_clip_serves_is_refused():
    with pytest.raises(ValueError, match="no sample for task ag: none of its 1 clips serves it"):
        samples_of_tasks([replace(clip(), tasks=("sed",))], ["ag"])


def test_the_tokenizers_texts_hold_the_questions_of_a_task_from_outside(toy):
    assert tokenizer_texts() == tokenizer_texts(["sed", "ag"])
    assert tokenizer_texts([toy]) == [*tokenizer_texts(), find_task(toy).asks]
