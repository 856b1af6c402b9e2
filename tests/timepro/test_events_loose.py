"""What models write instead of the format: every shape is read, and everything but the format itself is a repair."""

from __future__ import annotations

import pytest

from timepro.answers import parse_answer
from timepro.events import Event

DOG, CAT = (1.2, 3.4, "dog"), (4.0, 5.0, "cat")
BOTH = [DOG, CAT]


def read(text: str) -> list[tuple[float, float, str]]:
    answer = parse_answer(text)
    assert answer.ok
    assert not answer.clean
    return [(event.onset, event.offset, event.label) for event in answer.events]


TIMES = [
    "from 1.2 to 3.4 seconds", "between 1.2s and 3.4s", "1.2 s until 3.4 s", "from about 1.2 to roughly 3.4",
    "from the 1.2-second mark to the 3.4-second mark", "from second 1.2 to second 3.4", "from t=1.2 to t = 3.4",
    "1.2\u20133.4", "1.2 \u2014 3.4", "1.2 \u2212 3.4", "1.2~3.4", "1.2 --- 3.4", "1.2 -> 3.4", "1.2\u21923.4",
    "1.2..3.4", "1.2 \u2026 3.4", "1.2 sec. - 3.4 sec.", "1.2 seconds - 3.4 seconds", "1200-3400 ms",
    "1200 ms to 3400 ms",
    "0.02-0.056666666 min", "0:01.2 - 0:03.4", "00:01.20-00:03.40", "00:00:01,200 --> 00:00:03,400",
    "0 min 1.2 s - 0 min 3.4 s", "\uff11.\uff12-\uff13.\uff14", "\u0661\u066b\u0662-\u0663\u066b\u0664", "[1.2, 3.4]",
    "(1.2s, 3.4s)", "[1.2-3.4]", "start: 1.2, end: 3.4", "Start time: 1.2s, End time: 3.4s", "onset=1.2 offset=3.4",
    "starts at 1.2 seconds and ends at 3.4 seconds", "begins at 0:01.2 and stops at 0:03.4", "Onset: 1.2\nOffset: 3.4",
    "\u4ece1.2\u79d2\u52303.4\u79d2", "3.4-1.2", '{"start": 1.2, "end": "3.4s"}', '["1.2", "3.4"]', "1.2\t3.4",
    "1.2 3.4", "1.2, 3.4",
]  # fmt: skip


@pytest.mark.parametrize("text", TIMES)
def test_times_are_read_however_they_are_written(text):
    answer = parse_answer(text)
    assert not answer.clean
    ((onset, offset, label),) = [(event.onset, event.offset, event.label) for event in answer.events]
    assert (onset, offset) == pytest.approx((1.2, 3.4))
    assert label == ""


@pytest.mark.parametrize("text", [text for text in TIMES if not text.startswith(("{", "[", "1.2,", "1.2\t"))])
def test_a_label_in_front_of_any_of_them_is_the_label(text):
    assert [event.label for event in parse_answer(f"dog {text}").events] == ["dog"]


@pytest.mark.parametrize(
    "text",
    [
        "dog: 1.2-3.4, cat: 4-5",
        "dog 1.2-3.4\ncat 4-5",
        "dog (1.2s - 3.4s) | cat (4s - 5s)",
        "1. dog: 1.2 - 3.4 s\n2. cat: 4 - 5 s",
        "- **dog** (1.2s \u2013 3.4s)\n- **cat** (4s \u2013 5s)",
        "* dog [1.2, 3.4]\n* cat [4, 5]",
        "Event 1: dog (1.2-3.4)\nEvent 2: cat (4-5)",
        "Label: dog, Start: 1.2, End: 3.4\nLabel: cat, Start: 4, End: 5",
        "event: dog; start: 1.2; end: 3.4; event: cat; start: 4; end: 5",
        "dog starts at 1.2 and ends at 3.4, cat starts at 4 and ends at 5",
        "Sure! Here is what I hear:\n\ndog 1.2-3.4\ncat 4-5\n\nLet me know if you need more.",
        "dog 1.2-3.4 (loud), cat 4-5",
        "dog 1.2-3.4 followed by cat 4-5",
        "1.2-3.4: dog\n4-5: cat",
        "1.2-3.4 dog, 4-5 cat",
        "[1.20-3.40] dog\n[4.00-5.00] cat",
        "from 1.2 to 3.4 s dog, and then from 4 to 5 s cat.",
        "From 1.2 to 3.4 seconds, there is dog, and from 4 to 5 seconds, cat.",
        "In the recording, from 1.2 to 3.4 s dog, then from 4 to 5 s cat.",
        "The sound of 'dog' occurs from 1.2 to 3.4 s and the event \"cat\" is heard between 4 and 5 s.",
        "dog\n  Start: 1.2\n  End: 3.4\ncat\n  Start: 4\n  End: 5",
        "00:00:01,200 --> 00:00:03,400\ndog\n\n00:00:04,000 --> 00:00:05,000\ncat",
        "1\n00:01.2 --> 00:03.4\ndog\n\n2\n00:04 --> 00:05\ncat",
        "| Event | Start | End |\n|---|---|---|\n| dog | 1.2 | 3.4 |\n| cat | 4.0 | 5.0 |",
        "| 1 | 1.2 | 3.4 | dog |\n| 2 | 4.0 | 5.0 | cat |",
        "filename\tonset\toffset\tevent_label\na.wav\t1.2\t3.4\tdog\na.wav\t4.0\t5.0\tcat",
        "dog, 1.2, 3.4\ncat, 4.0, 5.0",
        "dog 1.2 3.4\ncat 4.0 5.0",
        "```\ndog 1.2-3.4\ncat 4-5\n```",
        "<think>perhaps bird 7-8</think>\ndog 1.20-3.40; cat 4.00-5.00",
        "<answer>dog 1.20-3.40; cat 4.00-5.00</answer>",
        "<|1.20|>dog<|3.40|><|4.00|>cat<|5.00|>",
        "<1.20><3.40>dog<4.00><5.00>cat",
        "<1.20>-<3.40>: dog\n<4.00>-<5.00>: cat",
        "from <1.20> to <3.40> dog, from <4.00> to <5.00> cat",
        "< 1.20 >dog<3.40 s>\n<4.00>cat<5.00>",
    ],
)
def test_two_labelled_events_in_every_shape(text):
    assert read(text) == BOTH


@pytest.mark.parametrize(
    "text",
    [
        '[{"label": "dog", "onset": 1.2, "offset": 3.4}, {"label": "cat", "onset": 4, "offset": 5}]',
        'Here it is:\n```json\n{"events": [{"event": "dog", "start_time": "1.2s", "end_time": "3.4s"},'
        ' {"event": "cat", "start_time": 4, "end_time": 5}]}\n```\nI\'m sure.',
        '{"label": "dog", "onset": 1.2, "offset": 3.4}\n{"label": "cat", "onset": 4, "offset": 5}',
        "{'dog': [[1.2, 3.4]], 'cat': [4, 5]}",
        '{"dog": "1.2-3.4", "cat": "4 to 5 seconds"}',
        '{"dog": {"start": 1.2, "end": 3.4}, "cat": [{"start": 4, "end": 5}]}',
        '[["dog", 1.2, 3.4], ["cat", 4, 5]]',
        "[(1.2, 3.4, 'dog'), (4, 5, 'cat')]",
        '[["dog", [1.2, 3.4]], ["cat", [4, 5]]]',
        '[{"sound": "dog", "timestamps": ["1.2", "3.4"]}, {"sound": "cat", "timestamps": [[4, 5]]}]',
        '[{"start": "00:01.2", "end": "00:03.4", "description": "dog"}, {"time": "4-5", "caption": "cat"}]',
        "{start: 1.2, end: 3.4, label: dog}, {start: 4, end: 5, label: cat}",
        '[{"label": "dog", "onset": 1.2, "offset": 3.4,}, {"label": "cat", "onset": 4, "offset": 5},]',
        '[{"label": "dog", "onset": 1.2, "offset": 3.4}, {"label": "cat", "onset": 4, "offset": 5',
        "[{\u201clabel\u201d: \u201cdog\u201d, \u201cfrom\u201d: 1.2, \u201cto\u201d: 3.4}, [\u201ccat\u201d, 4, 5]]",
        '{"answer": "dog 1.20-3.40; cat 4.00-5.00"}',
        'events = [("dog", 1.2, 3.4), ("cat", 4.0, 5.0)]',
    ],
)
def test_two_labelled_events_in_every_kind_of_brackets(text):
    assert read(text) == BOTH


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('[{"label": "a \\"big\\" dog", "onset": 1, "offset": 2}]', 'a "big" dog'),
        ('[{"label": "caf\\u00e9, loud", "onset": 1, "offset": 2}]', "caf\u00e9, loud"),
        ('[{"label": "it\'s a dog", "onset": 1, "offset": 2}]', "it's a dog"),
        ("[{'label': 'dogs {many}', 'onset': 1, 'offset': 2}]", "dogs {many}"),
        ("1-2: A dog barks loudly, then a car passes.", "A dog barks loudly, then a car passes"),
        ('a man says "hello" from 1 to 2', 'a man says "hello"'),
        ("half time 1 - 2", "half time"),
        ("half time: 1-2", "half time"),
        ("dog, time: 1-2", "dog"),
        ("**Label:** dog 1-2", "dog"),
    ],
)
def test_labels_keep_their_words(text, label):
    assert read(text) == [(1.0, 2.0, label)]


@pytest.mark.parametrize(
    "text",
    [
        "dog 1-2, 3-4",
        "dog at 1-2 and again at 3-4",
        "dog: 1s-2s; 3s-4s",
        "dog:\n - 1-2\n - 3-4",
        "dog from 1 to 2 s, and from 3 to 4 s.",
        "The event 'dog' occurs at 1-2 and 3-4.",
        '{"dog": [[1, 2], [3, 4]]}',
        '{"label": "dog", "intervals": [{"start": 1, "end": 2}, {"start": 3, "end": 4}]}',
        "dog [1, 2], [3, 4]",
    ],
)
def test_several_intervals_share_a_label(text):
    assert read(text) == [(1.0, 2.0, "dog"), (3.0, 4.0, "dog")]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ('[{"label": "dog", "onset": 1, "offset": 2}, {"label": "cat", "on', [(1, 2, "dog")]),
        ('[{"label": "dog", "onset": 1, "offset": 2}, {"label": "cat", "onset": 3, "offset": -', [(1, 2, "dog")]),
        ("dog 1s-2s; cat 3s-", [(1, 2, "dog")]),
        ("dog from 1 to 2 seconds, cat from 3 to", [(1, 2, "dog")]),
        ("| dog | 1.0 | 2.0 |\n| cat | 3.0 |", [(1, 2, "dog")]),
        ("<1.00>dog<2.00><3.00>cat<4.", [(1, 2, "dog")]),
    ],
)
def test_a_cut_off_last_event_is_dropped_and_said(text, events):
    assert read(text) == events
    assert any("half-finished" in repair or "unreadable" in repair or "not closed" in repair or "stray" in repair
               for repair in parse_answer(text).repairs)  # fmt: skip


@pytest.mark.parametrize("text", ["dog from 2 to 2 s", "dog 0:61-0:70", "dog [-1.2, 3.4]", "start: -1, end: 2"])
def test_impossible_times_are_no_event(text):
    answer = parse_answer(text)
    assert (answer.events, answer.ok) == ([], False)


def test_duplicates_in_brackets_are_kept():
    assert read('[["dog", 1, 2], ["dog", 1, 2]]') == [(1.0, 2.0, "dog")] * 2


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{}", '{"events": []}', "```json\n[]\n```", "No sound events were detected in the audio.", "Answer: none",
        "There is no dog barking in the clip.", "The sound does not occur in the audio.", "N/A", "Silence.",
        "<think>is there a dog from 1 to 2?</think>none", "The event is not present.",
    ],
)  # fmt: skip
def test_other_ways_to_say_that_there_is_nothing(text):
    answer = parse_answer(text)
    assert (answer.events, answer.ok, answer.clean) == ([], True, False)


@pytest.mark.parametrize(
    "text",
    ["I cannot tell.", "At 1.2 seconds, a dog barks.", "<think>dog 1-2", "dog cat", '{"label": "dog"}', "3", "1, x-y"],
)  # fmt: skip
def test_what_says_neither_is_unusable(text):
    answer = parse_answer(text)
    assert (answer.events, answer.ok) == ([], False)


def test_a_written_answer_is_never_read_by_another_reader():
    """Labels that look like other shapes come back as they were, next to anything."""
    for text in ("{x} 1.00-2.00; [y 3.00-4.00", "a | b 1.00-2.00", "<1.00>[1, 2]<2.00><3.00>from 1 to 2<4.00>"):
        answer = parse_answer(text)
        if answer.clean:
            assert all(isinstance(event, Event) for event in answer.events)
    assert parse_answer("a | b 1.00-2.00").events == [Event(1.0, 2.0, "a | b")]
    assert parse_answer("<1.00>[1, 2]<2.00>").events == [Event(1.0, 2.0, "[1, 2]")]
